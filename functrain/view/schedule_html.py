"""A schedule in a notebook: the call that makes it, its curve, and a note on the curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from functrain.core.schedule import Schedule
from functrain.errors import ConfigurationError
from functrain.plotting.chart import Options, chart_of
from functrain.plotting.columns import Columns
from functrain.plotting.curves import rates
from functrain.view.blocks import Markup, block, code, element, folding, joined, quiet
from functrain.view.page import charts

# A schedule without an end is drawn for the first of these run lengths that it fits into.
_ASSUMED = (1000, 10_000, 100_000, 1_000_000)
# A schedule that has to be followed step by step is drawn for at most this many steps.
_LONGEST = 20_000
_POINTS = 500
_OBSERVED = {"step": "the training loss of each step", "evaluation": "a metric of each evaluation"}


def html(schedule: Schedule) -> Markup:
    """Return the call and the curve."""
    return block(code(repr(schedule)), curve(schedule))


def curve(schedule: Schedule) -> Markup:
    """Return the curve of a schedule with a note on it, or only a note if there is no curve."""
    observes = getattr(schedule, "observes", None)
    if observes is not None:
        note = f"goes by {_OBSERVED[observes]}, so there is no curve before the run"
        return joined(element("div", quiet(note)), *_inside(schedule))
    try:
        length, note = _length(schedule)
        steps, lrs = some_rates(schedule, length)
    except Exception as error:  # of the user's function; shown in place of the curve
        return element("div", quiet(f"not drawn: {type(error).__name__}: {error}"))
    rows = ({"step": step, "lr": lr} for step, lr in zip(steps, lrs, strict=True))
    drawn = charts(chart_of({"": Columns.of(rows)}, Options(smooth=0)))
    picture = element("div", *drawn, style="max-width:460px")
    return joined(picture, element("div", quiet(note)) if note else "")


def some_rates(schedule: Schedule, steps: int) -> tuple[Sequence[int], list[float]]:
    """Return numbers of updates, and their learning rates, enough for a small picture of a run.

    Example:
        >>> from functrain.schedules import Linear
        >>> places, lrs = some_rates(Linear(1.0), steps=4096)
        >>> len(places), places[-1], lrs[-1]
        (500, 4095, 0.000244140625)
    """
    state = schedule.with_horizon(schedule.init(), steps)
    # A schedule whose state never changes needs no earlier steps to tell a later rate.
    if schedule.advance(state) == state:
        places = sorted({(steps - 1) * point // (_POINTS - 1) for point in range(_POINTS)})
        return places, [schedule.lr(state, place) for place in places]
    if steps > _LONGEST:
        name = type(schedule).__name__
        raise ConfigurationError(
            f"{name} has to be followed step by step, and {steps:,} steps are too many for a "
            f"glance; functrain.plotting.schedule(..., steps=N) draws them"
        )
    return range(steps), rates(schedule, steps)


def _length(schedule: Schedule) -> tuple[int, str]:
    """Return how many steps to draw, and a note on that length."""
    horizon = schedule.horizon() if hasattr(schedule, "horizon") else None
    if horizon is not None:
        return horizon, ""
    length = next(filter(lambda steps: _fits(schedule, steps), _ASSUMED), _ASSUMED[-1])
    start = schedule.init()
    if schedule.with_horizon(start, length) != start:
        return length, f"ends with the run; drawn for one of {length:,} steps"
    return length, f"has no end of its own; drawn are {length:,} steps"


def _fits(schedule: Schedule, steps: int) -> bool:
    try:
        schedule.with_horizon(schedule.init(), steps)
    except ConfigurationError:
        return False
    return True


def _inside(schedule: Schedule) -> Iterator[Markup]:
    """Return the schedules inside of one, each with its own curve if it has one."""
    cls: Any = type(schedule)
    if attrs.has(cls):
        for field in attrs.fields(cls):
            for inner in _schedules(getattr(schedule, field.name)):
                unfolded = getattr(inner, "observes", None) is None
                yield folding([code(repr(inner))], curve(inner), unfolded=unfolded)


def _schedules(value: object) -> Iterator[Schedule]:
    if isinstance(value, Schedule):
        yield value
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _schedules(inner)
