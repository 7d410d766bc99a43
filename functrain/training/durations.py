"""Durations of training, in steps, epochs, samples or minutes: exact numbers with a unit."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from fractions import Fraction
from numbers import Rational
from typing import Any, TypeAlias

import attrs

from functrain.errors import ConfigurationError


def _fraction(value: float | Fraction) -> Any:
    """Return a number as the fraction that its digits say; leave the rest to the validator."""
    if isinstance(value, float) and math.isfinite(value):
        return Fraction(repr(float(value)))  # one tenth for 0.1, not the nearest binary number
    if isinstance(value, bool) or not isinstance(value, Rational):
        return value
    return Fraction(value)


def _whole(value: int | Fraction) -> Any:
    number = _fraction(value)
    return int(number) if isinstance(number, Fraction) and number.denominator == 1 else value


def _above_0(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    whole = isinstance(instance, Steps | Samples)
    if type(value) is not (int if whole else Fraction) or value <= 0:
        kind = "a whole number" if whole else "a number"
        shown = _digits(value) if isinstance(value, Fraction) else repr(value)
        name = type(instance).__name__
        raise ConfigurationError(f"{name}(n): expected {kind} above 0, got {shown}")


def _digits(n: int | Fraction) -> str:
    """Return a fraction as a decimal number where that says it exactly, or as "1/3"."""
    if n.denominator == 1:
        return str(n.numerator)
    decimal = repr(float(n))
    return decimal if Fraction(decimal) == n else str(n)


def _python(n: Fraction) -> str:
    """Return a number that Python reads as this fraction, when given to a duration."""
    return repr(n) if "/" in _digits(n) else _digits(n)


class _Amount:
    __slots__ = ()
    n: int | Fraction

    def __str__(self) -> str:
        return _in_units(self.n, type(self).__name__.lower())


def _in_units(n: int | Fraction, units: str) -> str:
    return f"{_digits(n)} {units.removesuffix('s') if n == 1 else units}"


@attrs.frozen
class Steps(_Amount):
    """A number of optimizer updates.

    Args:
        n: how many, a whole number above 0.

    Example:
        >>> str(Steps(500))
        '500 steps'
    """

    n: int = attrs.field(converter=_whole, validator=_above_0)


@attrs.frozen
class Epochs(_Amount):
    """A number of passes over the data, whole or not.

    Args:
        n: how many, above 0; kept as the exact fraction that its digits say.

    Example:
        >>> str(Epochs(0.5))
        '0.5 epochs'
    """

    n: Fraction = attrs.field(converter=_fraction, validator=_above_0, repr=_python)


@attrs.frozen
class Samples(_Amount):
    """A number of samples seen.

    Args:
        n: how many, a whole number above 0.

    Example:
        >>> str(Samples(10_000))
        '10000 samples'
    """

    n: int = attrs.field(converter=_whole, validator=_above_0)


@attrs.frozen
class Minutes(_Amount):
    """A length of time.

    Args:
        n: how many minutes, above 0; kept as the exact fraction that its digits say.

    Example:
        >>> str(Minutes(1.5))
        '1.5 minutes'
    """

    n: Fraction = attrs.field(converter=_fraction, validator=_above_0, repr=_python)

    def __str__(self) -> str:
        # "2 seconds" are a thirtieth of a minute, which no decimal number says.
        if "/" in _digits(self.n) and "/" not in _digits(self.n * 60):
            return _in_units(self.n * 60, "seconds")
        return _in_units(self.n, "minutes")


Duration: TypeAlias = Steps | Epochs | Samples | Minutes

_UNITS: dict[str, tuple[type[Duration], Fraction]] = {
    "step": (Steps, Fraction(1)),
    "epoch": (Epochs, Fraction(1)),
    "sample": (Samples, Fraction(1)),
    "minute": (Minutes, Fraction(1)),
    "hour": (Minutes, Fraction(60)),
    "second": (Minutes, Fraction(1, 60)),
}
_PATTERN = re.compile(
    r"\s*(?P<number>[+-]?[\d_]*\.?[\d_]*(e[+-]?\d+)?(/\d+)?)\s*(?P<unit>[a-z]+)\s*", re.IGNORECASE
)
_EXAMPLES = 'write "500 steps", "0.5 epochs", "10_000 samples" or "10 minutes"'


def duration(value: object) -> Duration:
    """Return the duration that a text says.

    Args:
        value: a number and a unit (steps, epochs, samples, seconds, minutes, hours), or a
            duration, which is returned as it is.

    Raises:
        ConfigurationError: it is neither; a bare number, for one, which could mean any unit.

    Example:
        >>> duration("0.5 epochs"), duration("2 hours")
        (Epochs(n=0.5), Minutes(n=120))
    """
    if isinstance(value, (Steps, Epochs, Samples, Minutes)):
        return value
    if not isinstance(value, str):
        hint = f'; did you mean "{value} steps"?' if isinstance(value, (int, float)) else ""
        raise ConfigurationError(f"a duration needs its unit, got {value!r}{hint} ({_EXAMPLES})")
    match = _PATTERN.fullmatch(value)
    if match is None:
        raise ConfigurationError(f"{value!r} is not a number and a unit: {_EXAMPLES}")
    kind, scale = _unit(match["unit"].lower(), value)
    if not match["number"]:
        raise ConfigurationError(f'{value!r} lacks its number: write "1 {value.strip()}"')
    try:
        return kind(Fraction(match["number"]) * scale)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigurationError(f"{value!r} is not a duration: {error}") from error


def _unit(word: str, value: str) -> tuple[type[Duration], Fraction]:
    singular = word.removesuffix("s")
    if singular in _UNITS:
        return _UNITS[singular]
    near = get_close_matches(singular, _UNITS, n=1)
    hint = f'did you mean "{near[0]}s"? ' if near else ""
    raise ConfigurationError(f"{value!r} has the unknown unit {word!r}: {hint}{_EXAMPLES}")
