"""An axis: its range, where a value lies on it, its ticks and their labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import attrs

from functrain.plotting.decimation import drawable

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
# A range below this share of its values counts as a single value.
_LEAST_SPAN = 1e-9
# Smaller positive values are not drawn on a logarithmic axis; larger powers of ten overflow.
_LEAST, _MOST_POWER = 1e-300, 307


@attrs.frozen
class Axis:
    """A range of values on a linear or logarithmic axis.

    Attributes:
        low: lower end.
        high: upper end, above ``low``.
        log: whether the axis is logarithmic; both ends are positive then.

    Example:
        >>> axis = Axis.over([0.0, 8.0, math.inf], margin=0.0)
        >>> axis.place(2.0), axis.place(math.nan), [text for _, text in axis.ticks(4)]
        (0.25, None, ['0', '2', '4', '6', '8'])
        >>> [text for _, text in Axis.over([0.002, 30.0], log=True).ticks(4)]
        ['0.01', '0.1', '1', '10']
    """

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], log: bool = False, margin: float = 0.04) -> Axis:
        """Return the axis that shows all values that can be drawn.

        Args:
            values: any; values that are not finite, or have no logarithm, are left out.
            log: whether to use a logarithmic axis, if any value is positive.
            margin: share of the range to leave free at each end.
        """
        finite = [value for value in values if drawable(value)]
        positive = [value for value in finite if value > _LEAST] if log else []
        if not positive:
            return cls(*_wider(*_apart(*_ends(finite)), margin))
        least, most = (math.log10(end) for end in _ends(positive))
        low, high = _wider(*((least, most) if least < most else (least - 0.5, most + 0.5)), margin)
        return cls(10 ** max(low, -_MOST_POWER), 10 ** min(high, _MOST_POWER), True)

    @classmethod
    def of_steps(cls, values: Iterable[float]) -> Axis:
        """Return the horizontal axis of a run; it begins at 0 unless all values are far from it.

        Example:
            >>> Axis.of_steps([1.0, 200.0]), Axis.of_steps([900.0, 1000.0])
            (Axis(low=0.0, high=200.0, log=False), Axis(low=900.0, high=1000.0, log=False))
        """
        low, high = _ends([value for value in values if drawable(value)])
        return cls(*_apart(0.0 if 0 <= low <= 0.2 * high or low == high > 0 else low, high))

    def place(self, value: float) -> float | None:
        """Return where a value lies, from 0 at the low end to 1; ``None`` if it cannot be drawn."""
        if not drawable(value) or (self.log and value <= _LEAST):
            return None
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - low) / (high - low)

    def ticks(self, count: int, whole: bool = False) -> list[tuple[float, str]]:
        """Return round values within the range, and their labels.

        Args:
            count: about how many.
            whole: whether to return whole numbers only.
        """
        values = list(self._decades(count) if self.log else self._steps(count))
        if len(values) < 2 and self.log:  # the range is within a decade
            values = list(self._steps(count))
        span = max(map(abs, values), default=0.0)
        # Rounding errors would show as 5.6e-17 instead of 0.
        values = [0.0 if abs(value) < 1e-9 * span else value for value in values]
        values = [value for value in values if value.is_integer() or not whole]
        texts: list[str] = []
        for digits in (6, 9, 12, 17):  # as few as tell the ticks apart
            texts = [number(value, digits) for value in values]
            if len(set(texts)) == len(values):
                break
        return list(zip(values, texts, strict=True))

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def _steps(self, count: int) -> Iterator[float]:
        rough = (self.high - self.low) / max(1, count)
        power = math.floor(math.log10(rough))
        factor = next(f for f in (1, 2, 2.5, 5, 10) if f * 10.0**power >= rough * 0.999)
        step = factor * 10.0**power
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        # Through decimal digits, so that 3 * 0.1 is 0.3.
        yield from (float(f"{index * step:.12g}") for index in range(first, last + 1))

    def _decades(self, count: int) -> Iterator[float]:
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        stride = max(1, math.ceil((last - first + 1) / max(1, count)))
        few = last - first < 2
        for power in range(first - 1, last + 1):
            for factor in (1, 2, 5) if few else (1,):
                value = factor * 10.0**power
                if self.low <= value <= self.high and (few or (power - first) % stride == 0):
                    yield value


def number(value: float, digits: int = 6) -> str:
    """Return a tick label: SI prefixes for large numbers, powers of ten for tiny ones.

    Args:
        value: the number.
        digits: the most significant digits to write.

    Example:
        >>> [number(value) for value in (0.0, 250.0, 12_500.0, -2e6, 0.05, 3e-4, 1e15)]
        ['0', '250', '12.5k', '-2M', '0.05', '3e-4', '1e15']
    """
    size = abs(value)
    for scale, prefix in _PREFIXES:
        if scale <= size < 1e15:
            return f"{value / scale:.{digits}g}{prefix}"
    if size == 0 or 1e-3 <= size < 1e3:
        return f"{value:.{digits}g}"
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{float(mantissa):.{digits}g}e{int(power)}"


def _ends(values: list[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 1.0)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Return the ends, or those of a range around them if they are one value."""
    size = max(abs(low), abs(high))
    if high - low > _LEAST_SPAN * size:
        return low, high
    half = size * 0.05 if size > 1e-290 else 0.5
    return low - half, high + half


def _wider(low: float, high: float, margin: float) -> tuple[float, float]:
    free = margin * (high - low)
    return low - free, high + free
