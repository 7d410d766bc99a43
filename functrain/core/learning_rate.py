"""Learning rates on the host: plain numbers from plain numbers, one schedule a parameter group.

An optimizer without groups has one schedule and its rate is one float; ``groups`` has a dict of
them by the names of its members, and groups within groups dicts of dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from functrain.core.curve import RESTARTED, Curve
from functrain.core.given_schedules import as_schedule, with_mode, without_mode
from functrain.core.optimizer import Optimizer
from functrain.core.schedule import Mode, Schedule
from functrain.errors import RecipeChangedWarning, ScheduleEndedError, ScheduleEndedWarning
from functrain.errors.base import warn

Schedules: TypeAlias = "Schedule | dict[str, Schedules]"
Rate = Any
SchedulerState = dict[str, Any]


def schedules(optimizer: Optimizer) -> Schedules:
    """Return the schedule of an optimizer, or those of its groups by name."""
    return _schedules(optimizer.lr)


def init(schedules: Schedules) -> SchedulerState:
    """Return the tree that ``state.scheduler`` starts with."""
    if isinstance(schedules, dict):
        return {name: init(schedule) for name, schedule in schedules.items()}
    return schedules.init()


def rate(schedules: Schedules, state: SchedulerState, step: int) -> Rate:
    """Return the learning rate of update number ``step`` (from 0): a float, or floats by group."""
    if isinstance(schedules, dict):
        return {name: rate(schedule, state[name], step) for name, schedule in schedules.items()}
    if RESTARTED in state:
        return schedules.lr(state["schedule"], step - state[RESTARTED])
    return schedules.lr(state, step)


def rate_of_step(schedules: Schedules, state: SchedulerState, step: int, zero_rate: str) -> Rate:
    """Return :func:`rate`; warn or raise, as ``zero_rate`` says, if a schedule ended at zero."""
    found = rate(schedules, state, step)
    if zero_rate != "ignore":
        if has_zero(found):
            report_ended(schedules, state, step, zero_rate)
        _warn_of_spent(schedules, state, step)
    return found


def has_zero(rate: Rate) -> bool:
    """Whether a rate, or that of any group, is exactly zero."""
    return any(map(has_zero, rate.values())) if isinstance(rate, dict) else not rate


def by_name(rate: Rate, prefix: str = "lr") -> dict[str, float]:
    """Name rates for people: ``{"lr": 0.1}``; for groups also ``lr.NAME`` of each.

    ``lr`` is then that of the first group.

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


def curves(
    schedules: Schedules, state: SchedulerState, prefix: str = "lr"
) -> Iterator[tuple[str, Curve]]:
    """Yield each schedule with its state, by the names of :func:`by_name`."""
    if isinstance(schedules, dict):
        for name, schedule in schedules.items():
            yield from curves(schedule, state[name], f"{prefix}.{name}")
    else:
        yield prefix, Curve(schedules, state)


def map_curves(
    function: Callable[[Curve], SchedulerState], schedules: Schedules, state: SchedulerState
) -> SchedulerState:
    """Return the scheduler state that a function gives for each schedule."""
    if isinstance(schedules, dict):
        changed = {name: map_curves(function, own, state[name]) for name, own in schedules.items()}
        return {**state, **changed}  # a population keeps more there
    return function(Curve(schedules, state))


def advance(schedules: Schedules, state: SchedulerState, loss: Tensor) -> SchedulerState:
    """Return the scheduler state after an update.

    The loss is read only where a schedule observes it, since reading waits for the device.
    """
    if isinstance(schedules, dict):
        return {name: advance(own, state[name], loss) for name, own in schedules.items()}
    if RESTARTED in state:
        return {**state, "schedule": advance(schedules, state["schedule"], loss)}
    if _observes(schedules) == "step":
        state = schedules.observe(state, loss.item())  # before advancing: it is of this update
    return schedules.advance(state)


def observe(
    schedules: Schedules, state: SchedulerState, metric: float | None, mode: Mode | None = None
) -> SchedulerState:
    """Return the scheduler state after an evaluation gave ``metric``.

    The mode is for schedules that were not given one.
    """
    if isinstance(schedules, dict):
        each = {name: observe(own, state[name], metric, mode) for name, own in schedules.items()}
        return {**state, **each}
    if RESTARTED in state:
        return {**state, "schedule": observe(schedules, state["schedule"], metric, mode)}
    if _observes(schedules) == "step":
        return state
    directed: Schedule = with_mode(schedules, mode)
    return directed.observe(state, metric)


def with_horizon(schedules: Schedules, state: SchedulerState, steps: int) -> SchedulerState:
    """Return the scheduler state with the run's length filled in where it was left open."""

    def filled(curve: Curve) -> SchedulerState:
        return curve.with_own(curve.schedule.with_horizon(curve.own, steps - curve.start))

    return map_curves(filled, schedules, state)


def observes_evaluations(schedules: Schedules) -> bool:
    """Whether a schedule observes evaluations, and says so."""
    if isinstance(schedules, dict):
        return any(observes_evaluations(own) for own in schedules.values())
    return getattr(schedules, "observes", None) == "evaluation"


def needs_mode(schedules: Schedules) -> bool:
    """Return whether a schedule observes a metric and lacks the mode of its better value."""
    if isinstance(schedules, dict):
        return any(needs_mode(own) for own in schedules.values())
    return any(without_mode(schedules))


def check_mode(schedules: Schedules, mode: Mode | None) -> None:
    """Refuse schedules that would take less of a metric for better where more is better."""
    for schedule in schedules.values() if isinstance(schedules, dict) else [schedules]:
        if isinstance(schedule, dict):
            check_mode(schedule, mode)
        elif observes_evaluations(schedule):
            with_mode(schedule, mode)


def report_ended(schedules: Schedules, state: SchedulerState, step: int, how: str) -> None:
    """Warn of a schedule that has ended at zero, or raise; other zeros are fine.

    A warmup begins at zero, a cycle touches it, and a group may be given it: none of them has
    ended. Call this only where a rate is zero, so that it costs other steps nothing.
    """
    for name, curve in curves(schedules, state):
        if not curve.is_over(step):
            continue
        ends, kind = curve.end(step + 1), type(curve.schedule).__name__
        ended = f"{name}: {kind} has ended with a learning rate of exactly 0, at update {ends}"
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


def _warn_of_spent(schedules: Schedules, state: SchedulerState, step: int) -> None:
    """Warn in the first step after a schedule that has fallen to a small part of its rates."""
    for name, curve in curves(schedules, state):
        if curve.length_end == step and curve.is_spent(step):
            kind = type(curve.schedule).__name__
            warn(
                f"{name}: {kind} has ended at update {step}: steps from there on have its last "
                f"rate, {curve.rate(step):.3g}, which trains next to nothing. End the loop there, "
                "or make the schedule longer",
                ScheduleEndedWarning,
            )


def warn_of_overruled(schedules: Schedules, state: SchedulerState) -> None:
    """Warn of a schedule whose curve goes on as it was begun, with another length than its own."""
    for name, curve in curves(schedules, state):
        for field, kept, given in curve.overruled():
            kind = type(curve.schedule).__name__
            warn(
                f"{name}: the state goes on with the curve that it began, {field}={kept}, and not "
                f"with that of this {kind}, {field}={given}. To change to it: attrs.evolve(state, "
                "scheduler=program.init().scheduler)",
                RecipeChangedWarning,
            )


def _observes(schedule: Schedule) -> str | None:
    # A class of the shape of a schedule need not say it; then it is shown evaluations.
    return getattr(schedule, "observes", "evaluation")


def _schedules(lr: Any) -> Schedules:
    if isinstance(lr, Mapping):
        return {name: _schedules(own) for name, own in lr.items()}
    return as_schedule(lr)
