"""Learning rates on the host: plain numbers from plain numbers, one schedule a parameter group.

An optimizer without groups has one schedule and its rate is one float; ``groups`` has a dict of
them by the names of its members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from functrain.optim import Optimizer
from functrain.schedules import Schedule, as_schedule

Schedules = Schedule | dict[str, Schedule]
Rate = Any
SchedulerState = dict[str, Any]


def schedules(optimizer: Optimizer) -> Schedules:
    """The schedule of an optimizer, or those of its groups by name."""
    if isinstance(optimizer.lr, Mapping):
        return {name: as_schedule(lr) for name, lr in optimizer.lr.items()}
    return as_schedule(optimizer.lr)


def init(schedules: Schedules) -> SchedulerState:
    """The tree that ``state.scheduler`` starts with."""
    if isinstance(schedules, Mapping):
        return {name: schedule.init() for name, schedule in schedules.items()}
    return schedules.init()


def rate(schedules: Schedules, state: SchedulerState, step: int) -> Rate:
    """The learning rate of update number ``step`` (from 0): a float, or floats by group."""
    if isinstance(schedules, Mapping):
        return {name: schedule.lr(state[name], step) for name, schedule in schedules.items()}
    return schedules.lr(state, step)


def advance(schedules: Schedules, state: SchedulerState) -> SchedulerState:
    """The scheduler state after an update."""
    return _each(schedules, state, lambda schedule, own: schedule.advance(own))


def observe(schedules: Schedules, state: SchedulerState, metric: float | None) -> SchedulerState:
    """The scheduler state after an evaluation gave ``metric``."""
    return _each(schedules, state, lambda schedule, own: schedule.observe(own, metric))


def with_horizon(schedules: Schedules, state: SchedulerState, steps: int) -> SchedulerState:
    """The scheduler state with the run's length filled in where it was left open."""
    return _each(schedules, state, lambda schedule, own: schedule.with_horizon(own, steps))


def _each(
    schedules: Schedules,
    state: SchedulerState,
    function: Callable[[Schedule, SchedulerState], SchedulerState],
) -> SchedulerState:
    if isinstance(schedules, Mapping):
        return {name: function(schedule, state[name]) for name, schedule in schedules.items()}
    return function(schedules, state)
