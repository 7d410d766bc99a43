"""Check that a schedule is a function of its state and the step."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

from functrain.schedules import Schedule, ScheduleState, as_schedule
from functrain.testing import global_state
from functrain.testing.observed_calls import refuse, repeat_twice, snapshots, watch_call
from functrain.testing.snapshots import changes


def check_schedule(
    schedule: Schedule | Callable[[int], float] | float, steps: int, *, seed: int = 0
) -> None:
    """Check that a schedule returns the same rate for a step in any order.

    The schedule is run over losses that fall, stall, jump and are NaN. Called again with the same
    states and with copies, forwards, backwards and shuffled, it must return the same rates.
    ``advance`` and ``observe`` must not change their input state. Date and hour must not matter.

    Args:
        schedule: from ``functrain.schedules``, of that protocol, or a function of the step.
        steps: updates in the run.
        seed: seed of the losses and of the shuffled order.

    Raises:
        ImpurityError: with one line per finding.

    Example:
        >>> import functrain as ft
        >>> check_schedule(ft.schedules.Cosine(lr=0.1), steps=20)
        >>> rates = iter([0.3, 0.2, 0.1] * 9)
        >>> check_schedule(lambda step: next(rates), steps=3)
        Traceback (most recent call last):
        functrain.errors.ImpurityError: the schedule is not pure:
          lr at step 2 was 0.1 and is 0.3 when asked again ...
    """
    schedule = as_schedule(schedule)
    subject = "the schedule"
    losses = _losses(steps, random.Random(seed))

    def follow() -> dict[str, Any]:
        return {"followed": _followed(schedule, losses)}

    first = watch_call(follow, {"schedule": schedule})
    states, rates = first.result["followed"]
    refuse(subject, first.findings + _in_any_order(schedule, states, rates, seed))
    refuse(subject, _writes(schedule, states, losses))
    again = repeat_twice(first, follow, follow)
    refuse(subject, again + _resumed(schedule, states, rates, losses))
    refuse(subject, _by_the_clock(schedule, losses, rates))


def _losses(steps: int, chance: random.Random) -> list[float]:
    special = {steps // 3: float("nan"), steps // 2: 50.0}
    return [special.get(step, 2.0 / (1 + step % 7) + chance.random()) for step in range(steps)]


def _followed(
    schedule: Schedule, losses: list[float], state: ScheduleState | None = None, start: int = 0
) -> tuple[list[ScheduleState], list[float]]:
    """Return the states before each step, and the rate of each."""
    if state is None:
        state = schedule.with_horizon(schedule.init(), len(losses))
    states, rates = [], []
    for step in range(start, len(losses)):
        states.append(state)
        rates.append(schedule.lr(state, step))
        state = schedule.observe(schedule.advance(state), losses[step])
    return states, rates


def _in_any_order(
    schedule: Schedule, states: list[ScheduleState], rates: list[float], seed: int
) -> list[str]:
    backwards = list(reversed(range(len(rates))))
    shuffled = random.Random(seed).sample(backwards, len(backwards))
    found: dict[int, str] = {}
    for step in [*backwards, *shuffled]:
        again = schedule.lr(copy.deepcopy(states[step]), step)
        if repr(again) != repr(rates[step]):
            told = f"lr at step {step} was {rates[step]!r} and is {again!r} when asked again"
            found.setdefault(step, f"{told} with an equal state")
    return list(found.values())


def _by_the_clock(schedule: Schedule, losses: list[float], rates: list[float]) -> list[str]:
    """Describe the first step at which another date and hour give another rate."""
    with global_state.another_zone():
        _, others = _followed(schedule, losses)
    for step, (usual, other) in enumerate(zip(rates, others, strict=True)):
        if repr(other) != repr(usual):
            return [f"lr at step {step} depends on the clock: {usual!r} and {other!r}"]
    return []


def _writes(schedule: Schedule, states: list[ScheduleState], losses: list[float]) -> list[str]:
    found: list[str] = []
    for step, state in enumerate(states):
        for name, given in (("advance", ()), ("observe", (losses[step],))):
            before = snapshots({"state": state})
            getattr(schedule, name)(state, *given)
            found += [
                f"{change.place} was changed by {name}: {change.detail}"
                for change in changes(before, snapshots({"state": state}))
            ]
    return found


def _resumed(
    schedule: Schedule, states: list[ScheduleState], rates: list[float], losses: list[float]
) -> list[str]:
    """Describe differences when the run continues from a copy of a state halfway."""
    half = len(states) // 2
    _, again = _followed(schedule, losses, copy.deepcopy(states[half]), half)
    for step, (then, now) in enumerate(zip(rates[half:], again, strict=True), start=half):
        if repr(then) != repr(now):
            return [f"lr at step {step} was {then!r} and is {now!r} in a run resumed at {half}"]
    return []
