"""A schedule in a notebook: the call that makes it, its curve, and what the curve leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from functrain.core.schedule import Schedule, ScheduleState, rates
from functrain.errors import InvalidScheduleError
from functrain.view.display.blocks import block, code, folding, quiet
from functrain.view.display.curves import Curve, chart
from functrain.view.plotting.markup import Markup, element, joined

# A schedule that has to be followed step by step is followed so far at the most.
_LONGEST = 20_000
# Runs that a schedule without an end is drawn for: the first that it fits into.
_ASSUMED = (1000, 10_000, 100_000, 1_000_000)
_SHOWN_OF_METRIC = {
    "step": "the training loss of each step",
    "evaluation": "a metric of each evaluation",
}


def html(schedule: Schedule) -> Markup:
    """A schedule for a notebook."""
    return block(code(repr(schedule)), curve(schedule))


def curve(schedule: Schedule) -> Markup:
    """The curve of a schedule with a note on it; the note alone where there is none to draw."""
    observes = getattr(schedule, "observes", None)
    if observes is not None:
        note = f"goes by {_SHOWN_OF_METRIC[observes]}, so there is no curve before the run"
        return joined(element("div", quiet(note)), *_inside(schedule))
    try:
        length, note = _length(schedule)
        steps, lrs = outline(schedule, length)
    except Exception as error:  # not hidden: it stands in the place of the curve
        return element("div", quiet(f"not drawn: {type(error).__name__}: {error}"))
    svg = chart([Curve("learning rate", steps, lrs)], "step")
    return joined(svg, element("div", quiet(note)) if note else "")


def _length(schedule: Schedule) -> tuple[int, str]:
    """How many steps to draw, and what to say of it."""
    horizon = schedule.horizon() if hasattr(schedule, "horizon") else None
    if horizon is not None:
        return horizon, ""
    length = next(filter(lambda steps: _fits(schedule, steps), _ASSUMED), _ASSUMED[-1])
    if _is_open(schedule.init()):
        return length, f"ends with the run; drawn for one of {length:,} steps"
    return length, f"has no end of its own; drawn are {length:,} steps"


def _fits(schedule: Schedule, steps: int) -> bool:
    try:
        schedule.with_horizon(schedule.init(), steps)
    except InvalidScheduleError:
        return False
    return True


def _is_open(state: ScheduleState | list[Any]) -> bool:
    """Whether a horizon anywhere in it is to be filled in by the run."""
    pairs = state.items() if isinstance(state, dict) else enumerate(state)
    return any(
        (key == "horizon" and value is None) or (isinstance(value, dict | list) and _is_open(value))
        for key, value in pairs
    )


def _inside(schedule: Schedule) -> Iterator[Markup]:
    """The schedules that one is made of, each with a curve of its own where it has one."""
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


def outline(schedule: Schedule, steps: int, points: int = 500) -> tuple[Sequence[int], list[float]]:
    """Return some of the learning rates of a run, enough for a small picture.

    Args:
        schedule: it sees no metrics.
        steps: length of the run in updates.
        points: how many rates will do, where they can be told without those before.

    Returns:
        (numbers of updates, their learning rates).

    Raises:
        InvalidScheduleError: the schedule goes from step to step, and there are too many of them.

    Example:
        >>> from functrain.schedules import Linear
        >>> outline(Linear(1.0), steps=4096, points=2)
        ([0, 4095], [1.0, 0.000244140625])
    """
    state = schedule.with_horizon(schedule.init(), steps)
    # What leaves its state as it is at one step does so at all of them.
    if schedule.advance(state) == state:
        last = max(1, points - 1)
        places = sorted({(steps - 1) * point // last for point in range(points)})
        return places, [schedule.lr(state, place) for place in places]
    if steps > _LONGEST:
        raise InvalidScheduleError(
            f"{type(schedule).__name__} goes from step to step, and {steps:,} of them are too many "
            f"for a glance; {type(schedule).__name__}(...).plot(steps=N) draws them"
        )
    return range(steps), rates(schedule, steps)
