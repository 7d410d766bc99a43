"""Schedules of a resumed run: their saved state, and a run that has become longer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from functrain.core.learning_rate import SchedulerState, Schedules, own_state
from functrain.core.schedule import Schedule, ScheduleState, observed_by
from functrain.errors import ConfigurationError, FunctrainError, ScheduleStateError
from functrain.schedules.composite import own_end
from functrain.schedules.curve import Curve
from functrain.schedules.torch_schedule import TORCH_STATE, TorchSchedule

_MOST_ADVANCES = 1000  # of a schedule that must be advanced to be known; about 0.3 s of torch's


def resumed(schedules: Schedules, state: SchedulerState) -> SchedulerState:
    """Return a saved scheduler state; where it is open, the schedules' own values fill it in."""
    if isinstance(schedules, dict):
        _check_same("the lr of groups", schedules.keys(), state)
        return {name: resumed(own, state[name]) for name, own in schedules.items()}
    own, start = own_state(state)
    merged: ScheduleState = _merged(schedules.init(), own, type(schedules).__name__)
    return Curve(schedules, merged, start).state


def ends_before(curve: Curve, at: int, steps: int) -> bool:
    """Return whether a run of `steps` updates goes on beyond the end of the curve."""
    length = own_end(curve.schedule)
    shorter = length is not None and curve.start + length < steps
    if shorter or is_longer(curve, steps):
        return True
    try:
        return ends_at_zero(curve, at, steps)
    except FunctrainError:
        raise
    except Exception:  # of a torch scheduler that takes no more steps, or of the user's function
        return True


def is_longer(curve: Curve, steps: int) -> bool:
    """Return whether the run is now longer than it was when the curve began."""
    length = steps - curve.start
    try:
        return _grows(curve.own, curve.fresh(length))
    except ConfigurationError:  # a warmup that does not fit, or beyond an upper bound
        total_steps = curve.own.get("horizon")
        return total_steps is not None and total_steps < length


def ends_at_zero(curve: Curve, at: int, steps: int) -> bool:
    """Return whether the last updates have a rate of zero, after others with a positive one.

    One such update at the end of a run is how some curves end. A rate that is zero throughout
    is what the user gave.

    Raises:
        ValueError: a torch scheduler, such as OneCycleLR, takes fewer steps.
    """
    last = _last_rates(curve, at, steps)
    late = len(last) > 1 or is_longer(curve, steps)
    return not any(last) and late and curve.was_positive(steps)


def stretch(curve: Curve, at: int, steps: int) -> Curve:
    """Return the curve at update `at` of a run that had this length from the beginning.

    A schedule that observes metrics keeps what it learned from them.
    """
    schedule, length = curve.schedule, steps - curve.start
    if observed_by(schedule) is None:
        own = _advanced(schedule, curve.fresh(length), at - curve.start)
    else:
        own = schedule.with_horizon(_reopened(schedule.init(), curve.own), length)
    return Curve(schedule, own, curve.start)


def restart(curve: Curve, at: int, steps: int) -> Curve:
    """Return the curve of a schedule whose update 0 is `at`, and that ends with the run."""
    return Curve(curve.schedule, curve.fresh(steps - at), at)


def _last_rates(curve: Curve, at: int, steps: int) -> list[float]:
    """Return the rates of the last two updates, or of the only one that is left."""
    schedule, own, first = curve.schedule, curve.own, at - curve.start
    count = min(steps - at, 2)
    numbers = range(steps - curve.start - count, steps - curve.start)
    if not isinstance(schedule, TorchSchedule) and steps - at > _MOST_ADVANCES:
        return [schedule.lr(own, number) for number in numbers]
    own = _advanced(schedule, own, numbers[0] - first)
    states = [own, schedule.advance(own)] if count == 2 else [own]
    return [schedule.lr(*each) for each in zip(states, numbers, strict=True)]


def _advanced(schedule: Schedule, state: ScheduleState, count: int) -> ScheduleState:
    if isinstance(schedule, TorchSchedule):
        return schedule.advanced(state, count)
    for _ in range(count):
        after = schedule.advance(state)
        if after == state:  # advance is a function of the state alone, so it stays
            break
        state = after
    return state


def _grows(saved: Any, fresh: Any) -> bool:
    """Return whether `fresh` holds a greater number of total steps than `saved`."""
    if isinstance(saved, dict) and isinstance(fresh, dict):
        old, new = saved.get("horizon"), fresh.get("horizon")
        if isinstance(old, int) and isinstance(new, int) and new > old:
            return True
        return any(_grows(own, fresh.get(key)) for key, own in saved.items())
    if isinstance(saved, list) and isinstance(fresh, list):
        return any(map(_grows, saved, fresh))
    return False


def _reopened(initial: Any, saved: Any) -> Any:
    """Return the saved state, open where the schedule leaves its initial state open."""
    if isinstance(initial, dict) and isinstance(saved, dict):
        return {key: _reopened(own, saved[key]) for key, own in initial.items()}
    if isinstance(initial, list) and isinstance(saved, list):
        return [_reopened(*pair) for pair in zip(initial, saved, strict=True)]
    return None if initial is None else saved


def _merged(initial: Any, saved: Any, where: str) -> Any:
    if isinstance(initial, dict) and not initial.keys() >= TORCH_STATE:
        _check_same(where, initial.keys(), saved)
        return {name: _merged(own, saved[name], f"{where}.{name}") for name, own in initial.items()}
    if isinstance(initial, list):
        _check_same(where, range(len(initial)), saved)
        pairs = zip(initial, saved, strict=True)
        return [_merged(*pair, f"{where}[{index}]") for index, pair in enumerate(pairs)]
    return initial if saved is None else saved


def _check_same(where: str, expected: Iterable[Any], saved: Any) -> None:
    listed = isinstance(saved, list | tuple)
    found = saved if isinstance(saved, dict) else range(len(saved)) if listed else None
    if found is None or set(expected) != set(found):
        raise ScheduleStateError(
            f"{where}: the checkpoint was made with another learning rate schedule (it holds "
            f"{saved!r}). Continue with the schedule of the run, or start a new run from its "
            "weights: program.init(params=state.params)"
        )
