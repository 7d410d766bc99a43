"""Report a schedule that has ended, so that steps train nothing, or next to nothing."""

from __future__ import annotations

from functrain.core.learning_rate import SchedulerState, Schedules
from functrain.errors import ScheduleEndedError, ScheduleEndedWarning
from functrain.errors.base import warn
from functrain.schedules.curve import Curve, curves


def report_ended(schedules: Schedules, state: SchedulerState, step: int, how: str) -> None:
    """Warn of a schedule that has ended at zero, or raise, and warn where it ended near zero.

    Other zeros are fine: a warmup begins there, a cycle touches it, and a group may be given it.
    """
    for name, curve in curves(schedules, state):
        if _is_over(curve, step):
            _report_zero(f"{name}: {curve.kind}", curve.end(step + 1), how)
        elif curve.length_end() == step and curve.is_spent(step):
            warn(
                f"{name}: {curve.kind} has ended at update {step}: steps from there on have its "
                f"last rate, {curve.rate(step):.3g}, which trains next to nothing. End the loop "
                "there, or make the schedule longer",
                ScheduleEndedWarning,
            )


def _is_over(curve: Curve, step: int) -> bool:
    """Return whether this is the second update or a later one whose rate is zero for good."""
    if step - curve.start < 2 or not getattr(curve.schedule, "tells_ahead", True):
        return False
    return not curve.rate(step - 1) and curve.is_zero_for_good(step)


def _report_zero(name: str, at: int | None, how: str) -> None:
    ended = f"{name} has ended with a learning rate of exactly 0, at update {at}"
    if how == "raise":
        raise ScheduleEndedError(
            f"{ended}, and the run continues. End it there, or make the schedule longer; to "
            'train on at that rate, give fit schedule_end="keep" (fit.schedule_end=keep on the '
            "command line)"
        )
    warn(
        f"{ended}: steps from there on train nothing. End the loop there, or make the schedule "
        "longer",
        ScheduleEndedWarning,
    )
