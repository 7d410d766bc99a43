"""Learning rates on the host: plain numbers from plain numbers, one schedule a parameter group.

An optimizer without groups has one schedule and its rate is one float; ``groups`` has a dict of
them by the names of its members, and groups within groups dicts of dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from functrain.core.direction import Mode
from functrain.errors import ScheduleStateError
from functrain.optim import Optimizer
from functrain.schedules import Schedule, as_schedule
from functrain.schedules.curve import RESTARTED, Curve
from functrain.schedules.direction import directed, left_open
from functrain.schedules.from_torch import TORCH_STATE

Schedules: TypeAlias = "Schedule | dict[str, Schedules]"
Rate = Any
SchedulerState = dict[str, Any]


def schedules(optimizer: Optimizer) -> Schedules:
    """The schedule of an optimizer, or those of its groups by name."""
    return _schedules(optimizer.lr)


def init(schedules: Schedules) -> SchedulerState:
    """The tree that ``state.scheduler`` starts with."""
    if isinstance(schedules, dict):
        return {name: init(schedule) for name, schedule in schedules.items()}
    return schedules.init()


def rate(schedules: Schedules, state: SchedulerState, step: int) -> Rate:
    """The learning rate of update number ``step`` (from 0): a float, or floats by group."""
    if isinstance(schedules, dict):
        return {name: rate(schedule, state[name], step) for name, schedule in schedules.items()}
    if RESTARTED in state:
        return schedules.lr(state["schedule"], step - state[RESTARTED])
    return schedules.lr(state, step)


def has_zero(rate: Rate) -> bool:
    """Whether a rate, or that of any group, is exactly zero."""
    return any(map(has_zero, rate.values())) if isinstance(rate, dict) else not rate


def curves(
    schedules: Schedules, state: SchedulerState, prefix: str = "lr"
) -> Iterator[tuple[str, Curve]]:
    """Each schedule with its state, by the names of :func:`by_name`."""
    if isinstance(schedules, dict):
        for name, schedule in schedules.items():
            yield from curves(schedule, state[name], f"{prefix}.{name}")
    else:
        yield prefix, Curve(schedules, state)


def each_curve(
    schedules: Schedules, state: SchedulerState, function: Callable[[Curve], SchedulerState]
) -> SchedulerState:
    """The scheduler state that a function gives for each schedule."""
    if isinstance(schedules, dict):
        return {name: each_curve(own, state[name], function) for name, own in schedules.items()}
    return function(Curve(schedules, state))


def by_name(rate: Rate, prefix: str = "lr") -> dict[str, float]:
    """Rates for people: ``{"lr": 0.1}``, or the first group's as ``lr`` and each as ``lr.NAME``.

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


def advance(schedules: Schedules, state: SchedulerState, loss: Tensor) -> SchedulerState:
    """The scheduler state after an update.

    Args:
        schedules: one, or one a group.
        state: before the update.
        loss: of the update; waited for only where a schedule goes by it.
    """

    def advanced(schedule: Schedule, own: SchedulerState) -> SchedulerState:
        if _observes(schedule) == "step":
            own = schedule.observe(own, loss.item())  # shown to whoever was in charge of the update
        return schedule.advance(own)

    return _each(schedules, state, advanced)


def observe(
    schedules: Schedules, state: SchedulerState, metric: float | None, mode: Mode | None = None
) -> SchedulerState:
    """Return the scheduler state after an evaluation gave ``metric``.

    Args:
        schedules: one, or one a group.
        state: before the evaluation.
        metric: ``None`` where it was not measured.
        mode: whether less or more of it is better, for schedules that were not told.
    """

    def observed(schedule: Schedule, own: SchedulerState) -> SchedulerState:
        if _observes(schedule) == "step":
            return own
        told: Schedule = directed(schedule, mode)
        return told.observe(own, metric)

    return _each(schedules, state, observed)


def waits_for_evaluations(schedules: Schedules) -> bool:
    """Whether a schedule goes by what evaluations give, and says so."""
    if isinstance(schedules, dict):
        return any(waits_for_evaluations(own) for own in schedules.values())
    return getattr(schedules, "observes", None) == "evaluation"


def is_open(schedules: Schedules) -> bool:
    """Whether a schedule goes by a metric and was not told which of two values is better."""
    if isinstance(schedules, dict):
        return any(is_open(own) for own in schedules.values())
    return any(left_open(schedules))


def check_directed(schedules: Schedules, mode: Mode | None) -> None:
    """Refuse schedules that would take less for better of a metric of which more is.

    Raises:
        InvalidScheduleError: there is one that cannot be told.
    """
    for schedule in schedules.values() if isinstance(schedules, dict) else [schedules]:
        if isinstance(schedule, dict):
            check_directed(schedule, mode)
        elif waits_for_evaluations(schedule):
            directed(schedule, mode)


def with_horizon(schedules: Schedules, state: SchedulerState, steps: int) -> SchedulerState:
    """The scheduler state with the run's length filled in where it was left open."""

    def filled(curve: Curve) -> SchedulerState:
        return curve.with_own(curve.schedule.with_horizon(curve.own, steps - curve.begun))

    return each_curve(schedules, state, filled)


def resumed(schedules: Schedules, state: SchedulerState) -> SchedulerState:
    """A saved scheduler state, with what it left open taken from the schedules where they say it.

    Raises:
        ScheduleStateError: it was made by schedules of another kind.
    """
    if isinstance(schedules, dict):
        _check_same("the lr of groups", schedules.keys(), state)
        return {name: resumed(own, state[name]) for name, own in schedules.items()}
    curve = Curve(schedules, state)
    merged: SchedulerState = _merged(schedules.init(), curve.own, type(schedules).__name__)
    return curve.with_own(merged)


def _merged(made: Any, saved: Any, where: str) -> Any:
    if isinstance(made, dict) and not made.keys() >= TORCH_STATE:
        _check_same(where, made.keys(), saved)
        return {name: _merged(own, saved[name], f"{where}.{name}") for name, own in made.items()}
    if isinstance(made, list):
        _check_same(where, range(len(made)), saved)
        pairs = zip(made, saved, strict=True)
        return [_merged(*pair, f"{where}[{index}]") for index, pair in enumerate(pairs)]
    return made if saved is None else saved


def _check_same(where: str, expected: Iterable[Any], saved: Any) -> None:
    found = saved if isinstance(saved, dict) else range(len(saved)) if _listed(saved) else None
    if found is None or set(expected) != set(found):
        raise ScheduleStateError(
            f"{where}: the checkpoint was made with another learning rate schedule (it holds "
            f"{saved!r}). Go on with the schedule of the run, or begin a new run from its weights: "
            "program.init(params=state.params)"
        )


def _listed(saved: Any) -> bool:
    return isinstance(saved, list | tuple)


def _observes(schedule: Schedule) -> str | None:
    # A class of the shape of a schedule need not say it; then it is shown evaluations.
    return getattr(schedule, "observes", "evaluation")


def _schedules(lr: Any) -> Schedules:
    if isinstance(lr, Mapping):
        return {name: _schedules(own) for name, own in lr.items()}
    return as_schedule(lr)


def _each(
    schedules: Schedules,
    state: SchedulerState,
    function: Callable[[Schedule, SchedulerState], SchedulerState],
) -> SchedulerState:
    if isinstance(schedules, dict):
        return {name: _each(own, state[name], function) for name, own in schedules.items()}
    if RESTARTED in state:
        return {**state, "schedule": function(schedules, state["schedule"])}
    return function(schedules, state)
