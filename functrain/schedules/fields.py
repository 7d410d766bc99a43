"""Conversion and checks of the fields of a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from functrain.core.schedule import plain_float
from functrain.errors import ConfigurationError

__all__ = ["exactly_one", "multiplied", "plain_float"]


def exactly_one(first: str, second: str) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Accept when one of two fields is given and the other is None."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        given = {name: getattr(instance, name) for name in (first, second)}
        if sum(value is None for value in given.values()) != 1:
            values = " and ".join(f"{name}={value!r}" for name, value in given.items())
            raise ConfigurationError(
                f"{type(instance).__name__}: give exactly one of {first} and {second}, got {values}"
            )

    return validate


def multiplied(value: float, factor: float, times: int) -> float:
    """Return ``value * factor**times``, infinity where that is too large for a float.

    Example:
        >>> multiplied(0.5, 2.0, 3), multiplied(0.5, 2.0, 10**6), multiplied(0.0, 2.0, 10**6)
        (4.0, inf, 0.0)
    """
    try:
        return value * factor**times
    except OverflowError:
        return math.inf if value > 0 else 0.0
