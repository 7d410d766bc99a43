"""The total steps of a schedule, kept in its state under ``"horizon"``.

A schedule without `steps` of its own ends with the run. The run fills in its length once, and
from then on only the state is read, so a resumed run stays on the curve that it began.
"""

from __future__ import annotations

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError, UnknownLengthError


class WithTotalSteps(Schedule):
    """A schedule with a field `steps`, and with the total steps in its state."""

    __slots__ = ()
    steps: int | None

    def init(self) -> ScheduleState:
        """Return the state with `steps` as its horizon, open where the run's length decides."""
        state = self._open()
        return state if self.steps is None else self._filled(state, self.steps)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with `steps` as its horizon, if it had none."""
        return state if state["horizon"] is not None else self._filled(state, steps)

    def _open(self) -> ScheduleState:
        return {"horizon": None}

    def _filled(self, state: ScheduleState, total_steps: int) -> ScheduleState:
        return {"horizon": check_total_steps(self, total_steps)}


def known_total_steps(schedule: Schedule, state: ScheduleState, field: str = "steps") -> int:
    """Return the total steps in `state`."""
    total_steps: int | None = state["horizon"]
    if total_steps is None:
        name = type(schedule).__name__
        raise UnknownLengthError(
            f"{name} has no {field} of its own, and the length of the run is not known here: "
            f"give {name}(..., {field}=N), or run it by ft.fit(until=...), or in a loop of your "
            "own by ft.iterate(..., until=...), with a number of steps, or of epochs of data whose "
            "length is known; samples and minutes do not determine it"
        )
    return total_steps


def check_total_steps(schedule: Schedule, steps: int, warmup: int = 0) -> int:
    """Return `steps` if a curve fits into them after the warmup."""
    if steps > warmup:
        return steps
    name = type(schedule).__name__
    if warmup > 0:
        raise ConfigurationError(
            f"{name}: warmup_steps={warmup} leaves nothing of a horizon of {steps} steps to decay "
            "in: lengthen the run (or steps=), or shorten the warmup"
        )
    raise ConfigurationError(f"{name}: the run leaves it {steps} steps; it needs at least 1")
