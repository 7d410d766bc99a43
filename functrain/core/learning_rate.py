"""Learning rates on the host: plain numbers from plain numbers, one schedule a parameter group.

An optimizer without groups has one schedule and its rate is one float; ``groups`` has a dict of
them by the names of its members, and groups within groups dicts of dicts. The state of a schedule
that was restarted within its run is in a dict with the update at which it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs
from torch import Tensor

from functrain.core.optimizer import Optimizer
from functrain.core.schedule import (
    Constant,
    Mode,
    Schedule,
    ScheduleState,
    as_schedule,
    observed_by,
)
from functrain.errors import ConfigurationError, RecipeChangedWarning
from functrain.errors.base import warn

Schedules: TypeAlias = "Schedule | dict[str, Schedules]"
Rate = Any
SchedulerState = dict[str, Any]

RESTARTED = "restarted_at"
"""Key in the state of a schedule that was restarted within its run, beside "schedule"."""


def schedules(optimizer: Optimizer) -> Schedules:
    """Return the schedule of an optimizer, or those of its groups by name."""

    def convert(lr: Any) -> Schedules:
        if isinstance(lr, Mapping):
            return {name: convert(own) for name, own in lr.items()}
        return as_schedule(lr)

    return convert(optimizer.lr)


def init(schedules: Schedules) -> SchedulerState:
    """Return the tree that ``state.scheduler`` starts with."""
    if isinstance(schedules, dict):
        return {name: init(schedule) for name, schedule in schedules.items()}
    return schedules.init()


def rate(schedules: Schedules, state: SchedulerState, step: int) -> Rate:
    """Return the learning rate of update number ``step`` (from 0): a float, or floats by group."""
    if isinstance(schedules, dict):
        return {name: rate(schedule, state[name], step) for name, schedule in schedules.items()}
    own, start = own_state(state)
    return schedules.lr(own, step - start)


def rate_of_step(schedules: Schedules, state: SchedulerState, step: int, zero_rate: str) -> Rate:
    """Return :func:`rate`; warn or raise, as ``zero_rate`` says, if a schedule has ended."""
    if isinstance(schedules, Constant):
        return schedules.base
    lr = rate(schedules, state, step)
    if zero_rate != "ignore" and any(
        _may_have_ended(schedule, own, step - start)
        for _, schedule, own, start in each_schedule(schedules, state)
    ):
        from functrain.diagnosis.ended_schedules import report_ended

        report_ended(schedules, state, step, zero_rate)
    return lr


def _may_have_ended(schedule: Schedule, own: ScheduleState, step: int) -> bool:
    """Return whether two updates have a rate of zero, or a schedule's length is over."""
    if isinstance(schedule, Constant) or not getattr(schedule, "tells_ahead", True):
        return False
    if step >= 2 and not schedule.lr(own, step) and not schedule.lr(own, step - 1):
        return True
    return step == length(schedule, own)


def length(schedule: Schedule, own: ScheduleState) -> int | None:
    """Return the number of updates after which a schedule is over, if it tells one."""
    known: int | None = own.get("horizon")
    if known is None and hasattr(schedule, "horizon"):
        return schedule.horizon()
    return known


def by_name(rate: Rate, prefix: str = "lr") -> dict[str, float]:
    """Name rates for people: ``{"lr": 0.1}``; for groups also ``lr.NAME`` of each.

    ``lr`` is then the rate of the first group.

    Example:
        >>> by_name({"0": 0.1, "1": {"a": 0.2, "b": 0.3}})
        {'lr': 0.1, 'lr.0': 0.1, 'lr.1': 0.2, 'lr.1.a': 0.2, 'lr.1.b': 0.3}
    """
    if not isinstance(rate, dict):
        return {prefix: rate}
    named: dict[str, float] = {}
    for name, own in rate.items():
        named.update(by_name(own, f"{prefix}.{name}"))
    return {prefix: next(iter(named.values()), 0.0), **named}


def own_state(state: SchedulerState) -> tuple[ScheduleState, int]:
    """Return a schedule's own state, and the update of the run that is its update 0."""
    return (state["schedule"], state[RESTARTED]) if RESTARTED in state else (state, 0)


def each_schedule(
    schedules: Schedules, state: SchedulerState, prefix: str = "lr"
) -> Iterator[tuple[str, Schedule, ScheduleState, int]]:
    """Yield each schedule with :func:`own_state`, by the names of :func:`by_name`."""
    if isinstance(schedules, dict):
        for name, schedule in schedules.items():
            yield from each_schedule(schedule, state[name], f"{prefix}.{name}")
    else:
        yield prefix, schedules, *own_state(state)


def _map_states(
    function: Callable[[Schedule, ScheduleState, int], ScheduleState],
    schedules: Schedules,
    state: SchedulerState,
) -> SchedulerState:
    """Return the scheduler state with the states that a function of each schedule returns."""
    if isinstance(schedules, dict):
        changed = {name: _map_states(function, own, state[name]) for name, own in schedules.items()}
        return {**state, **changed}  # a population keeps more there
    if RESTARTED in state:
        return {**state, "schedule": function(schedules, *own_state(state))}
    return function(schedules, state, 0)


def advance(schedules: Schedules, state: SchedulerState, loss: Tensor) -> SchedulerState:
    """Return the scheduler state after an update.

    The loss is read only where a schedule observes it, since reading waits for the device.
    """
    if isinstance(schedules, Constant):
        return state

    def advance_one(schedule: Schedule, own: ScheduleState, _: int) -> ScheduleState:
        if observed_by(schedule) == "step":  # before advancing: the loss belongs to this update
            own = schedule.observe(own, loss.item())
        return schedule.advance(own)

    return _map_states(advance_one, schedules, state)


def observe(
    schedules: Schedules, state: SchedulerState, metric: float | None, mode: Mode | None = None
) -> SchedulerState:
    """Return the scheduler state after an evaluation; ``mode`` is for schedules without one."""

    def observe_one(schedule: Schedule, own: ScheduleState, _: int) -> ScheduleState:
        if observed_by(schedule) == "step":
            return own
        directed: Schedule = with_mode(schedule, mode)
        return directed.observe(own, metric)

    return _map_states(observe_one, schedules, state)


def with_total_steps(schedules: Schedules, state: SchedulerState, steps: int) -> SchedulerState:
    """Return the scheduler state with the run's length filled in where it was left open."""

    def fill(schedule: Schedule, own: ScheduleState, start: int) -> ScheduleState:
        return schedule.with_horizon(own, steps - start)

    return _map_states(fill, schedules, state)


def warn_of_overruled(schedules: Schedules, state: SchedulerState) -> None:
    """Warn of a schedule whose curve goes on as it was begun, with another length than its own."""
    for name, schedule, own, _ in each_schedule(schedules, state):
        for field, kept, given in _overruled(schedule.init(), own):
            kind = type(schedule).__name__
            warn(
                f"{name}: the state goes on with the curve that it began, {field}={kept}, and not "
                f"with that of this {kind}, {field}={given}. To change to it: attrs.evolve(state, "
                "scheduler=program.init().scheduler)",
                RecipeChangedWarning,
            )


def _overruled(initial: Any, saved: Any) -> Iterator[tuple[str, int, int]]:
    """Yield each length that differs: its name, in the saved state, and in the initial one."""
    if isinstance(initial, dict) and isinstance(saved, dict):
        for key, name in (("warmup", "warmup_steps"), ("horizon", "steps")):
            given, kept = initial.get(key), saved.get(key)
            if isinstance(given, int) and isinstance(kept, int) and given != kept:
                yield name, kept, given
        for key, own in initial.items():
            yield from _overruled(own, saved.get(key))
    elif isinstance(initial, list) and isinstance(saved, list):
        for pair in zip(initial, saved, strict=False):
            yield from _overruled(*pair)


def with_mode(schedule: Any, mode: Mode | None) -> Any:
    """Return a schedule that takes more for better, also in schedules within it.

    One that has a ``mode`` stays as it is. Schedules without a mode assume ``"min"``, so ``"min"``
    and ``None`` change nothing.

    Example:
        >>> from functrain.schedules import Plateau
        >>> with_mode(Plateau(0.1), "max").mode, with_mode(Plateau(0.1, mode="min"), "max").mode
        ('max', 'min')
    """
    inner = next(without_mode(schedule), None) if mode == "max" else None
    if inner is None:
        return schedule
    if type(schedule) in (tuple, list):
        return type(schedule)(with_mode(part, mode) for part in schedule)
    if inner is schedule and hasattr(schedule, "mode"):
        return attrs.evolve(schedule, mode=mode)
    kind = type(schedule)
    if inner is schedule or not attrs.has(kind):
        name = getattr(inner, "name", type(inner).__name__)
        raise ConfigurationError(
            f"{name if inner is schedule else f'{name} in {kind.__name__}'} takes less for better "
            "by default, but more of the monitored metric is better. Give it mode='max' (or "
            "mode='min', if that is meant)"
        )
    fields = {field.alias: getattr(schedule, field.name) for field in attrs.fields(kind)}
    return attrs.evolve(schedule, **{name: with_mode(part, mode) for name, part in fields.items()})


def without_mode(schedule: Any) -> Iterator[Any]:
    """Yield the schedules in it that go by a metric of evaluations and have no mode."""
    # Asked of the class: a wrapper may delegate every attribute to the schedule within it.
    if hasattr(type(schedule), "needs_mode") and schedule.needs_mode is True:
        yield schedule
    else:
        for part in _parts(schedule):
            yield from without_mode(part)


def _parts(schedule: Any) -> Iterable[Any]:
    if isinstance(schedule, tuple | list):
        return schedule
    if not hasattr(schedule, "observe"):
        return ()
    if attrs.has(type(schedule)):
        return [getattr(schedule, field.name) for field in attrs.fields(type(schedule))]
    return list(getattr(schedule, "__dict__", {}).values())
