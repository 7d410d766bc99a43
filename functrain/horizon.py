"""The learning rate schedule at the beginning of a run, before anything is written."""

from __future__ import annotations

from typing import Any

import attrs

from functrain import learning_rate
from functrain.errors import ScheduleEndedWarning
from functrain.program import Program
from functrain.state import TrainState
from functrain.warning import warn


def scheduled(program: Program, state: TrainState, steps: int | None) -> TrainState:
    """The state with the run's length filled in where its schedule was left open.

    Args:
        program: whose schedules they are.
        state: where the run begins.
        steps: the run's length in updates, ``None`` where it is unknown.

    Raises:
        UnknownHorizonError: the schedule ends with the run, whose length is unknown.
        InvalidScheduleError: the schedule does not fit into the run.
    """
    if steps is not None:
        state = program.with_horizon(state, steps)
    learning_rate.rate(program.schedules, state.scheduler, state.counters.step)
    return state


def taken_up(program: Program, state: TrainState, steps: int | None) -> TrainState:
    """The same for a state from a checkpoint, which keeps the curve that it was begun with.

    Warns:
        ScheduleEndedWarning: the run is longer than that curve.

    Raises:
        ScheduleStateError: the state was made by another schedule.
    """
    scheduler = learning_rate.resumed(program.schedules, state.scheduler)
    state = scheduled(program, attrs.evolve(state, scheduler=scheduler), steps)
    ends = [end for end in _horizons(state.scheduler) if steps is not None and end < steps]
    if ends:
        warn(
            f"the learning rate schedule ends at update {min(ends)}, as the run was begun, and the "
            f"run now goes on to {steps}: the updates from {min(ends)} on have its last rate. For "
            "a longer curve begin a new run from these weights",
            ScheduleEndedWarning,
        )
    return state


def _horizons(scheduler: Any) -> list[int]:
    """The horizons of a run's schedules; those within composites end before the run does."""
    if "horizon" in scheduler:
        return [] if scheduler["horizon"] is None else [scheduler["horizon"]]
    groups = [own for own in scheduler.values() if isinstance(own, dict)]
    return [end for own in groups if "horizon" in own for end in _horizons(own)]
