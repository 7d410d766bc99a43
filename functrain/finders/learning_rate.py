"""The learning-rate range test: the loss at a rate that grows from step to step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import attrs

from functrain.core import learning_rate
from functrain.core.learning_rate import Schedules
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.data.own_generators import keep_generators
from functrain.errors import ConfigurationError, FinderError, MissingExtraError, NonFiniteError
from functrain.plotting.colors import THEMES
from functrain.schedules import Lambda
from functrain.training.durations import Steps
from functrain.training.iteration import iterate

_SMOOTHING = 0.98
_DIVERGED = 4.0
_EXCLUDED_STEPS = 5


@attrs.frozen(repr=False)
class LearningRateCurve:
    """The result of a learning-rate range test.

    Attributes:
        rates: the learning rate of each step.
        losses: the smoothed loss of each step.
        raw: the loss of each step.
        diverged: whether the search ended early because the loss grew far beyond its best value.
    """

    rates: list[float]
    losses: list[float]
    raw: list[float]
    diverged: bool

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls most steeply over the logarithm of the rate.

        As in fastai's ``steep``, the first tenth of the search, before the mean stabilizes, and
        the last 5 steps are excluded.

        Raises:
            FinderError: there are too few steps, or the loss never fell.
        """
        inner = range(len(self.rates) // 10, len(self.rates) - _EXCLUDED_STEPS)
        if len(inner) < 3:
            raise FinderError(
                f"{len(self.rates)} steps are too few to see a slope: search with more steps=, or "
                "from a lower low="
            )
        slopes = {index: self._slope(index) for index in inner[:-1]}
        steepest = min(slopes, key=slopes.__getitem__)
        if slopes[steepest] >= 0:
            raise FinderError(
                f"the loss fell at no rate from {self.rates[inner[0]]:.3g} to "
                f"{self.rates[inner[-1]]:.3g}: search from a lower low="
            )
        return self.rates[steepest]

    def _slope(self, index: int) -> float:
        ratio = self.rates[index + 1] / self.rates[index]
        return (self.losses[index + 1] - self.losses[index]) / math.log(ratio)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the curve.

        Args:
            path: the file to write, if any.

        Returns:
            A ``matplotlib.figure.Figure`` that notebooks show.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from functrain.plotting.figure import axes_of, blank

        figure = blank((7, 4), theme := THEMES["light"])
        axes = axes_of(figure, theme, "learning rate", "loss")
        axes.plot(
            self.rates, self.raw, color=theme.lines[-1], alpha=0.35, linewidth=1, label="loss"
        )
        axes.plot(self.rates, self.losses, color=theme.lines[0], label="smoothed")
        with contextlib.suppress(FinderError):
            rate = self.suggestion
            axes.axvline(rate, color=theme.lines[1], linestyle="--", label=f"suggestion {rate:.3g}")
        axes.set_xscale("log")
        axes.set_ylim(top=max(self.losses[0] * 2, min(self.losses)))
        axes.legend(frameon=False)
        if path is not None:
            figure.write(path)
        return figure

    def _repr_png_(self) -> Any:
        """Return the picture that a notebook shows; without matplotlib, it shows the text."""
        try:
            return self.plot()._repr_png_()
        except MissingExtraError:
            return None

    def __repr__(self) -> str:
        """Return the range of the search and its suggestion."""
        found = f"{self.rates[0]:.3g} to {self.rates[-1]:.3g}"
        try:
            return f"LearningRateCurve({found}, suggestion {self.suggestion:.3g})"
        except FinderError as error:
            return f"LearningRateCurve({found}, no suggestion: {error})"


def find_lr(
    program: Program,
    state: TrainState,
    data: Any,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
) -> LearningRateCurve:
    """Train with an exponentially growing learning rate, and record the loss.

    The range test of Smith (2017, "Cyclical Learning Rates for Training Neural Networks"), with
    the rates, smoothing and end of fastai's ``lr_find``. The search replaces the program's
    schedule and uses the same rate for all groups of parameters.

    Args:
        program: the program to train.
        state: the initial state; neither it nor ``data``'s random generator is changed.
        data: data as for ``fit``, read from the state's position and repeated as necessary. The
            search advances a loader with ``state_dict``, so pass a separate one.
        low: the first rate, above 0.
        high: the last rate, above ``low``.
        steps: number of steps, at least 2.

    Returns:
        The curve. It ends early if the smoothed loss exceeds 4 times its best value or is not
        finite.

    Raises:
        ConfigurationError: the rates or the number of steps are invalid.
        FinderError: the loss is not finite at the first step.

    Example:
        >>> import functrain as ft, torch
        >>> x = torch.linspace(-1, 1, 64).reshape(-1, 1)
        >>> loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
        >>> program = ft.program(lambda: torch.nn.Linear(1, 1), loss, ft.optim.SGD(lr=1.0))
        >>> curve = find_lr(program, program.init(), [(x, 3 * x)])
        >>> 1e-2 < curve.suggestion < 3
        True
    """
    if not 0 < low < high < math.inf or steps < 2:
        raise ConfigurationError(
            f"find_lr expects 0 < low < high and at least 2 steps, got low={low}, high={high}, "
            f"steps={steps}"
        )
    raw: list[float] = []
    losses: list[float] = []
    diverged = False
    rates = [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]
    searching = contextlib.closing(_losses(program, state, data, rates))
    with keep_generators(getattr(data, "data", data)), searching as found:
        for loss in found:
            diverged = not math.isfinite(loss)
            if diverged:
                break
            raw.append(loss)
            losses.append(smoothed(raw))
            diverged = losses[-1] > min(losses) + (_DIVERGED - 1) * abs(min(losses))
            if diverged:
                break
    if not raw:
        raise FinderError(
            f"the loss is not finite at the first step, at a rate of {low}: check that weights "
            "and data are finite, or search from a lower low="
        )
    return LearningRateCurve(rates[: len(raw)], losses, raw, diverged)


def smoothed(losses: list[float]) -> float:
    """Return the bias-corrected exponential mean of losses (fastai: AvgSmoothLoss).

    Example:
        >>> smoothed([2.0]), round(smoothed([2.0, 1.0]), 3)
        (2.0, 1.495)
    """
    mean = 0.0
    for loss in losses:
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
    return mean / (1 - _SMOOTHING ** len(losses))


def _losses(
    program: Program, state: TrainState, data: Any, rates: list[float]
) -> Generator[float, None, None]:
    """Yield the loss of each step, infinite if the step fails."""
    first = step = state.counters.step
    searching = _with_schedule(program, Lambda(lambda at: rates[min(at - first, len(rates) - 1)]))
    scheduler = learning_rate.init(searching.schedules)
    start = attrs.evolve(state, scheduler=scheduler)
    try:
        for after, metrics in iterate(searching, start, data, until=Steps(first + len(rates))):
            if after.counters.step > step:  # else the batch was empty
                step = after.counters.step
                yield metrics["loss"].item()
    except NonFiniteError:
        yield math.inf


def _with_schedule(program: Program, schedule: Lambda) -> Program:
    """Return a program with one schedule for all groups that does not donate its state."""

    def everywhere(schedules: Schedules) -> Schedules:
        if isinstance(schedules, dict):
            return {name: everywhere(own) for name, own in schedules.items()}
        return schedule

    return attrs.evolve(program, schedules=everywhere(program.schedules), donates=False)
