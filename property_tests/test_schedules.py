"""Laws of schedules, alone and inside one another."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler
from trying import tried

from functrain import plotting
from functrain import schedules as fs
from functrain.errors import ConfigurationError
from functrain.schedules import Schedule, ScheduleState
from functrain.testing import check_schedule
from functrain.testing.strategies import schedules

rates = st.floats(1e-6, 1.0)
counts = st.integers(1, 20)
lengths = st.none() | st.integers(12, 60)
factors = st.floats(0.0, 0.99)
parts = st.floats(0.0, 1.0)


@st.composite
def closed(draw: st.DrawFn) -> tuple[Schedule, float, float]:
    """A schedule whose lr depends on the step alone, and bounds of its lr."""
    lr, end = draw(rates), draw(rates)
    low, high = min(lr, end), max(lr, end)
    steps, n = draw(lengths), draw(counts)
    bound: dict[str, Any] = {"upper_bound": 1000, "infimum_lr": lr / 10, "max_iter": steps}
    warmup = draw(
        st.fixed_dictionaries({"warmup_steps": st.integers(0, 5)})
        | st.fixed_dictionaries({"warmup_proportion": st.floats(0, 0.4)})
    )
    decay: dict[str, Any] = draw(
        st.fixed_dictionaries({"decay_steps": st.integers(0, 5)})
        | st.fixed_dictionaries({"decay_proportion": st.floats(0, 0.4)})
    )
    ramp: dict[str, Any] = {"steps": steps, "end": end, **warmup}
    shape = draw(st.sampled_from(["linear", "cosine", "sqrt"]))
    mode = draw(st.sampled_from(["triangular", "triangular2", "exp_range"]))
    return draw(
        st.sampled_from(
            [
                (fs.Constant(lr), lr, lr),
                (fs.Linear(lr, end, steps), low, high),
                (fs.Cosine(lr, end, steps), low, high),
                (fs.Polynomial(lr, draw(st.floats(0.1, 5)), end, steps), low, high),
                (fs.Exponential(high, draw(factors), end=low), low, high),
                (fs.Exponential(low, draw(st.floats(1.001, 2)), end=high), low, high),
                (fs.Step(lr, n, draw(factors)), 0.0, lr),
                (fs.MultiStep(lr, sorted([n, 2 * n, 30]), draw(factors)), 0.0, lr),
                (fs.OneCycle(lr, warmup_proportion=draw(parts) / 2, steps=steps), 0.0, lr),
                (fs.OneCycle(lr, shape="linear", three_phase=True, steps=steps), 0.0, lr),
                (fs.Cyclic(low, high, n, draw(counts), mode, draw(parts)), low, high),
                (fs.CosineRestarts(lr, n, draw(st.integers(1, 3)), end), low, high),
                (fs.InverseSqrt(lr, warmup_steps=n, timescale=draw(counts)), 0.0, lr),
                (fs.WarmupLinear(lr, **ramp), 0.0, high),
                (fs.WarmupCosine(lr, **ramp), 0.0, high),
                (fs.WarmupStableDecay(lr, shape=shape, **ramp, **decay), 0.0, high),
                (fs.Piecewise({0: lr, n: end}, "cosine"), low, high),
                (fs.Piecewise({0: lr, n: end, n + 9: lr}, "linear"), low, high),
                (fs.Hyperbolic(lr, **bound), lr / 10, lr),
                (fs.ExpHyperbolic(lr, **bound), lr / 10, lr),
                (fs.Lambda(lambda step: low + (high - low) / (1 + step)), low, high),
            ]
        )
    )


leaves = closed().map(lambda made: made[0])
observers = st.sampled_from(
    [
        fs.Plateau(0.3, factor=0.5, patience=0, observes="step"),
        fs.Spike(0.3, burn_in=2, cooldown=1, recovery=1.3),
        fs.Spike(fs.Cosine(0.3), burn_in=1, floor=0.1, threshold_mode="rel", threshold=0.2),
    ]
)
replayed = st.sampled_from(
    [
        fs.from_torch(lr_scheduler.ExponentialLR, lr=0.3, gamma=0.9),
        fs.from_torch(lr_scheduler.StepLR, lr=0.3, step_size=3),
    ]
)


def nested(inner: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    """Schedules of schedules with at least 12 steps each."""
    share = st.floats(0.3, 0.7)
    return st.one_of(
        st.builds(fs.Scaled, inner, st.floats(0, 2)),
        st.builds(fs.Warmup, parts, st.integers(0, 5), inner),
        st.builds(fs.ExponentialWarmup, st.floats(0.1, 20), inner),
        st.builds(lambda a, b, at: fs.Sequential([a, b], [at]), inner, inner, st.integers(12, 20)),
        st.builds(lambda a, b, p: fs.Joined([(p, a), (1 - p, b)]), inner, inner, share),
        st.builds(lambda a: fs.Spike(a, burn_in=2, cooldown=2, recovery=1.1), inner),
    )


base = leaves | observers | replayed
any_schedule = st.one_of(base, nested(base), nested(nested(base)))
pure_schedule = st.one_of(leaves, nested(leaves), nested(nested(leaves))).filter(
    lambda schedule: schedule.observes is None
)
losses = st.lists(
    st.floats(0.5, 2.0) | st.sampled_from([9.0, math.inf, math.nan]), min_size=70, max_size=70
)


NO_ROOM = ("the run leaves it", "leaves nothing of a horizon", "do not fit", "would get none")


def started(schedule: Schedule, steps: int = 400) -> ScheduleState:
    try:
        return schedule.with_horizon(schedule.init(), steps)
    except ConfigurationError as error:
        # A nested section may be too short for its schedule, which is refused.
        assume(not any(words in str(error) for words in NO_ROOM))
        raise


def follow(
    schedule: Schedule, state: ScheduleState, metrics: list[float], begin: int = 0
) -> tuple[list[float], list[ScheduleState]]:
    lrs, states = [], []
    for step, metric in enumerate(metrics[begin:], start=begin):
        lrs.append(schedule.lr(state, step))
        state = schedule.observe(schedule.advance(state), metric)
        states.append(state)
    return lrs, states


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or type(value) in (int, float, str, bool)


@given(made=closed(), steps=st.integers(15, 90))
def test_the_lr_stays_within_its_bounds(made: tuple[Schedule, float, float], steps: int) -> None:
    schedule, low, high = made
    state = started(schedule, steps)
    slack = 4 * math.ulp(high)
    for step in [*range(120), 10**4, 10**7]:
        assert low - slack <= schedule.lr(state, step) <= high + slack


@given(schedule=pure_schedule)
def test_the_lr_at_a_step_equals_a_replay(schedule: Schedule) -> None:
    state = started(schedule)
    replay, _ = follow(schedule, state, [1.0] * 70)
    assert [schedule.lr(state, step) for step in range(70)] == replay


@pytest.mark.row(17)
@tried(60)
@given(schedule=schedules(), steps=st.integers(31, 60), seed=st.integers(0, 99))
def test_a_schedule_is_pure(schedule: Any, steps: int, seed: int) -> None:
    check_schedule(schedule, steps, seed=seed)


@given(schedule=any_schedule, metrics=losses)
def test_states_are_plain_values(schedule: Schedule, metrics: list[float]) -> None:
    _, states = follow(schedule, started(schedule), metrics)
    for state in [schedule.init(), *states]:
        assert is_plain(state)
        assert repr(json.loads(json.dumps(state))) == repr(state)


@given(schedule=any_schedule, metrics=losses, at=st.integers(0, 69))
def test_a_run_restored_at_any_step_continues_the_curve(
    schedule: Schedule, metrics: list[float], at: int
) -> None:
    lrs, states = follow(schedule, started(schedule), metrics)
    saved = json.dumps(states[at])
    restored, _ = follow(schedule, json.loads(saved), metrics, begin=at + 1)
    assert restored == lrs[at + 1 :]
    again = schedule.with_horizon(json.loads(saved), 999)  # like a resumed run of another length
    assert follow(schedule, again, metrics, begin=at + 1)[0] == restored


@given(schedule=any_schedule, steps=st.integers(300, 500), other=st.integers(300, 500))
def test_the_first_horizon_stays(schedule: Schedule, steps: int, other: int) -> None:
    state = started(schedule, steps)
    assert schedule.with_horizon(state, other) == state


@given(schedule=pure_schedule, factor=parts, warmup=st.integers(0, 20))
def test_warmup_and_scaled_follow_their_formulas(
    schedule: Schedule, factor: float, warmup: int
) -> None:
    outer = fs.Scaled(fs.Warmup(factor, warmup, then=schedule), 0.5)
    state, inner = started(outer, 400), started(schedule, 400 - warmup)
    for step in range(60):
        if step >= warmup:
            expected = schedule.lr(inner, step - warmup)
        else:
            expected = schedule.lr(inner, 0) * (factor + (1 - factor) * step / warmup)
        assert outer.lr(state, step) == 0.5 * expected


@settings(max_examples=50)
@given(schedule=any_schedule)
def test_the_drawn_curve_is_the_curve_of_a_run(schedule: Schedule) -> None:
    if schedule.observes is not None:
        return
    drawn = plotting.schedule(schedule, steps=300).lines[0].get_ydata()
    run, _ = follow(schedule, started(schedule, 300), [1.0] * 300)
    assert list(drawn) == run
