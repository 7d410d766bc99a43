"""Field validators whose errors name the schedule, the field, and what was given."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, TypeAlias

import attrs

from functrain.errors import InvalidScheduleError

Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def plain_float(value: Any) -> Any:
    """Return a number of any library as a float, and anything else unchanged for the validator."""
    is_number = type(value) is not bool and isinstance(value, Real)
    return float(value) if is_number else value


def real(
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> Validator:
    """Accept a finite float from `minimum` to `maximum`, more than `above`, less than `below`."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not (isinstance(value, float) and math.isfinite(value)):
            raise _invalid(instance, attribute, "a finite number", value)
        if not minimum <= value <= maximum:
            raise _invalid(instance, attribute, f"a number {_bounds(minimum, maximum)}", value)
        if not value > above:
            raise _invalid(instance, attribute, f"a number above {above:g}", value)
        if not value < below:
            raise _invalid(instance, attribute, f"a number below {below:g}", value)

    return validate


def integer(*, minimum: int) -> Validator:
    """Accept an int from the minimum on."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise _invalid(instance, attribute, f"an integer >= {minimum}", value)

    return validate


def one_of(*choices: str) -> Validator:
    """Accept one of a few words."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in choices:
            raise _invalid(instance, attribute, " or ".join(map(repr, choices)), value)

    return validate


def exactly_one(first: str, second: str) -> Validator:
    """Accept when one of two fields is given and the other is None."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        given = {name: getattr(instance, name) for name in (first, second)}
        if sum(value is None for value in given.values()) != 1:
            values = " and ".join(f"{name}={value!r}" for name, value in given.items())
            raise InvalidScheduleError(
                f"{type(instance).__name__}: give exactly one of {first} and {second}, got {values}"
            )

    return validate


def _bounds(minimum: float, maximum: float) -> str:
    if math.isinf(maximum):
        return f">= {minimum:g}"
    return f"from {minimum:g} to {maximum:g}"


def _invalid(
    instance: Any, attribute: attrs.Attribute[Any], expected: str, value: Any
) -> InvalidScheduleError:
    name = attribute.alias or attribute.name
    return InvalidScheduleError(
        f"{type(instance).__name__}: {name} must be {expected}, got {value!r}"
    )
