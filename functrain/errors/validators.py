"""Validators of fields; messages name class, field, the expected value and the given one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias

import attrs

from functrain.errors import ConfigurationError

Validator: TypeAlias = "Callable[[Any, attrs.Attribute[Any], Any], None]"


def whole(least: int) -> Validator:
    """Accept whole numbers.

    Args:
        least: the smallest of them.

    Example:
        >>> @attrs.frozen
        ... class Last:
        ...     count: int = attrs.field(validator=whole(1))
        >>> Last(0)
        Traceback (most recent call last):
        functrain.errors.ConfigurationError: Last: count must be a whole number from 1, got 0
    """

    def accepts(value: Any) -> bool:
        return type(value) is not bool and isinstance(value, Integral) and int(value) >= least

    return _validator(accepts, f"a whole number from {least}")


def between(low: float, high: float = math.inf) -> Validator:
    """Accept finite numbers.

    Args:
        low: the least one, itself accepted.
        high: the largest one, itself accepted.
    """

    def accepts(value: Any) -> bool:
        real = type(value) is not bool and isinstance(value, Real)
        return real and math.isfinite(value) and low <= float(value) <= high

    bound = f"a finite number from {low:g}"
    return _validator(accepts, bound + (" up" if high == math.inf else f" to {high:g}"))


def one_of(choices: Sequence[Any]) -> Validator:
    """Accept some values.

    Args:
        choices: these.
    """
    return _validator(lambda value: value in choices, f"one of {list(choices)}")


def at_least(owner: str, name: str, least: float, value: object) -> ConfigurationError:
    """Return the error for a number that is too small, or no number."""
    kind = "a number" if isinstance(value, float) else "an int"
    return ConfigurationError(
        f"{owner}({name}=...) must be {kind} of at least {least}, got {value!r}"
    )


def _validator(accepts: Callable[[Any], bool], expected: str) -> Validator:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not accepts(value):
            raise ConfigurationError(
                f"{type(instance).__name__}: {attribute.name} must be {expected}, got {value!r}"
            )

    return check
