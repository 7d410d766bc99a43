"""The curve of a schedule, its learning rate against the step: as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functrain.core.schedule import Schedule
from functrain.errors import InvalidScheduleError, ScheduleStateError, UnknownLengthError
from functrain.errors.optional import require

_COLOR = "#1f5fa8"
# A schedule that has to be followed step by step is followed so far at the most.
_LONGEST = 20_000


def draw(schedule: Schedule, steps: int | None, ax: Any) -> Any:
    """Draw what `Schedule.plot` promises; see there.

    Example:
        >>> from functrain.schedules import Cosine
        >>> axes = draw(Cosine(0.1, steps=100), None, None)
        >>> axes.get_ylabel()
        'learning rate'
    """
    lrs = rates(schedule, steps)
    if ax is None:
        figure = require("matplotlib.figure", "plot").Figure((6, 3.2), layout="constrained")
        ax = figure.subplots()
    ax.plot(range(len(lrs)), lrs, color=_COLOR)
    ax.set_xlabel("step")
    ax.set_ylabel("learning rate")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def rates(schedule: Schedule, steps: int | None = None) -> list[float]:
    """Return the learning rates of a run.

    Args:
        schedule: it sees no metrics.
        steps: length of the run in updates; None is the schedule's own horizon.

    Raises:
        UnknownLengthError: it has none.
        ScheduleStateError: its lr depends on metrics that are observed.
        InvalidScheduleError: `steps` is no integer, or less than 1.

    Example:
        >>> from functrain.schedules import Linear
        >>> rates(Linear(1.0), steps=4)
        [1.0, 0.75, 0.5, 0.25]
    """
    name = type(schedule).__name__
    if schedule.observes is not None:
        raise ScheduleStateError(
            f"{name}'s lr depends on the metrics it observes, so there is no curve to draw before "
            "the run: draw the lr that its history holds, or the schedules inside it"
        )
    length = schedule.horizon() if steps is None else steps
    if length is None:
        raise UnknownLengthError(
            f"{name} has no horizon of its own: give the number of updates to draw, {name}(...)"
            ".plot(steps=N)"
        )
    if not isinstance(length, int) or length < 1:
        raise InvalidScheduleError(f"{name}.plot: steps must be an integer >= 1, got {length!r}")
    state = schedule.with_horizon(schedule.init(), length)
    lrs = []
    for step in range(length):
        lrs.append(schedule.lr(state, step))
        state = schedule.advance(state)
    return lrs


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
