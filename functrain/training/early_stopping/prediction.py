"""The final loss, predicted from the losses so far: a*exp(-b*t) + c through noisy points.

The model is linear in all but the rate b, so only b is searched, and a and c follow from it by
linear least squares: variable projection (Golub and Pereyra, 1973). Points far off the curve count
less (weights of Huber, 1964).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from functrain.errors import ConfigurationError

LEAST_POINTS = 4  # one more than there are unknowns
_MOST_POINTS = 4096
# Rates that are tried, in units of the observed span: from hardly bent to over in a moment.
_SLOWEST, _CANDIDATES, _ZOOMS, _REWEIGHTINGS = 1e-3, 65, 9, 4
_ROUNDING = 1e-13  # of the largest loss: what differs less is constant
_HUBER = 1.345  # standard deviations; 95% efficient on normal noise


@attrs.frozen
class Prediction:
    """A curve ``a * exp(-b * (step - origin)) + c`` and its value where it was asked for."""

    value: float
    a: float
    b: float
    c: float
    origin: float
    misfit: float

    def at(self, step: float) -> float:
        """Return the curve's value at another step."""
        return self.a * math.exp(-self.b * (step - self.origin)) + self.c


def predict_final(steps: Sequence[float], losses: Sequence[float], at: float) -> Prediction | None:
    """Extrapolate the losses of a run to a later step.

    The losses may have any sign and scale, or rise towards a limit as an accuracy does. Values that
    are not finite are left out.

    Args:
        steps: where the losses were measured, in any unit and order.
        losses: as many values.
        at: the step to predict, in the same unit.

    Returns:
        The fitted curve, or ``None`` where the points say nothing about where it ends: there are
        fewer than four, or all at one step, or they do not bend towards a limit that a float can
        hold. (A prediction within the observed steps needs no limit.)

    Raises:
        ConfigurationError: the lengths differ, or ``at`` is not finite.

    Example:
        >>> steps = range(0, 100, 10)
        >>> losses = [2 * math.exp(-0.03 * step) + 0.5 for step in steps]
        >>> found = predict_final(steps, losses, at=1000)
        >>> round(found.value, 6), round(found.a, 6), round(found.b, 6)
        (0.5, 2.0, 0.03)
    """
    points = _points(steps, losses, at)
    if len(points) < LEAST_POINTS:
        return None
    origin = min(step for step, _ in points)
    span = max(step for step, _ in points) - origin
    scale = max(abs(loss) for _, loss in points)
    if span == 0:
        return None
    times = torch.tensor([(step - origin) / span for step, _ in points], dtype=torch.float64)
    values = torch.tensor([loss / (scale or 1) for _, loss in points], dtype=torch.float64)
    return _fitted(times, values, (at - origin) / span, origin, span, scale)


def _points(
    steps: Sequence[float], losses: Sequence[float], at: float
) -> list[tuple[float, float]]:
    """Return the finite points, thinned out evenly where there are very many."""
    if len(steps) != len(losses) or not math.isfinite(at):
        raise ConfigurationError(
            "predict_final takes as many steps as losses and a finite step to predict, got "
            f"{len(steps)} steps, {len(losses)} losses and at={at}"
        )
    pairs = ((float(step), float(loss)) for step, loss in zip(steps, losses, strict=True))
    points = [pair for pair in pairs if math.isfinite(pair[0]) and math.isfinite(pair[1])]
    return points[:: 1 + len(points) // _MOST_POINTS]


def _fitted(
    times: Tensor, values: Tensor, at: float, origin: float, span: float, scale: float
) -> Prediction | None:
    """Return the prediction for times in [0, 1] and values in [-1, 1]."""
    middle = values.median()
    height = (values - middle).abs().max()
    if float(height) <= _ROUNDING:
        return Prediction(scale * float(middle), 0.0, 1 / span, scale * float(middle), origin, 0.0)
    normal = (values - middle) / height
    rate, weights = _rate(times, normal)
    if rate < 1.01 * _SLOWEST and at > 1:
        return None
    (start,), (slope,), residuals = _projected(
        times, normal, torch.tensor([rate], dtype=torch.float64), weights
    )
    unit = scale * float(height)
    rise, base = unit * float(slope) / rate, scale * float(middle) + unit * float(start)
    found = Prediction(
        value=base - rise * math.expm1(-rate * at),
        a=-rise,
        b=rate / span,
        c=base + rise,
        origin=origin,
        misfit=unit * float(residuals.square().mean().sqrt()),
    )
    return found if all(map(math.isfinite, attrs.astuple(found))) else None


def _rate(times: Tensor, values: Tensor) -> tuple[float, Tensor]:
    """Return the best rate, and the weights of the points under which it is."""
    weights = torch.ones_like(values)
    for _ in range(_REWEIGHTINGS):
        rate = _best_rate(times, values, weights)
        *_, residuals = _projected(
            times, values, torch.tensor([rate], dtype=torch.float64), weights
        )
        distances = residuals[0].abs()
        # The median distance of normal noise is 0.6745 standard deviations.
        bound = _HUBER * float(distances.median()) / 0.6745
        if float(distances.max()) <= max(bound, _ROUNDING):
            break
        weights = (max(bound, _ROUNDING) / distances).clamp(max=1.0)
    return rate, weights


def _best_rate(times: Tensor, values: Tensor, weights: Tensor) -> float:
    """Return the rate of least squares: the best of a grid, then of ever finer ones around it."""
    gaps = times.sort().values.diff()
    low, high = math.log(_SLOWEST), math.log(50 / float(gaps[gaps > 0].min()))
    best, first, last = low, low, high
    for _ in range(_ZOOMS):
        grid = torch.linspace(first, last, _CANDIDATES, dtype=torch.float64)
        *_, residuals = _projected(times, values, grid.exp(), weights)
        best = float(grid[(weights * residuals.square()).sum(1).argmin()])
        width = (last - first) / (_CANDIDATES - 1)
        first, last = max(low, best - width), min(high, best + width)
    return math.exp(best)


def _projected(
    times: Tensor, values: Tensor, rates: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Value and slope at time 0 of the best curve of each rate, and how far the points are off.

    ``(1 - exp(-b t)) / b`` in place of ``exp(-b t)``: as b gets small it becomes t, not 1, so that
    curves that hardly bend are fitted as well as others.

    Args:
        times: [points].
        values: [points].
        rates: [rates].
        weights: [points].

    Returns:
        (starts [rates], slopes [rates], residuals [rates, points]).
    """
    curves = -torch.expm1(-rates[:, None] * times) / rates[:, None]
    total = weights.sum()
    centre = (weights * curves).sum(1, keepdim=True) / total
    mean = (weights * values).sum() / total
    spread = curves - centre
    slopes = (weights * spread * (values - mean)).sum(1) / (weights * spread.square()).sum(1)
    starts = mean - slopes * centre[:, 0]
    return starts, slopes, values - starts[:, None] - slopes[:, None] * curves
