"""A step whose learning rate is zero because its schedule has ended."""

from __future__ import annotations

from functrain.core import learning_rate
from functrain.core.state import TrainState
from functrain.errors import ScheduleEndedError, ScheduleEndedWarning
from functrain.errors.warning import warn


def tell(schedules: learning_rate.Schedules, state: TrainState, how: str) -> None:
    """Warn of a schedule that has ended at zero, or refuse it; other zeros are passed by.

    A warmup begins at zero, a cycle touches it, and a group may be given it: none of them has
    ended. That is looked into only where a rate is zero, so that it costs other steps nothing.

    Args:
        schedules: of the program.
        state: before the step.
        how: ``"warn"`` or ``"raise"``.

    Raises:
        ScheduleEndedError: a schedule has ended.

    Warns:
        ScheduleEndedWarning: the same; once where the filters are Python's own.
    """
    step = state.counters.step
    for name, curve in learning_rate.curves(schedules, state.scheduler):
        if not curve.is_over(step):
            continue
        ends, kind = curve.end(step + 1), type(curve.schedule).__name__
        ended = f"{name}: {kind} has ended with a learning rate of exactly 0, at update {ends}"
        if how == "raise":
            raise ScheduleEndedError(
                f"{ended}, and the run goes on. End it there, or make the schedule longer; or give "
                'fit schedule_end="keep" (fit.schedule_end=keep on the command line) where that '
                "is meant"
            )
        warn(
            f"{ended}: steps from there on train nothing. End the loop there, or make the schedule "
            "longer",
            ScheduleEndedWarning,
        )
