"""Row 20: Spike lowers the lr when the training loss of a step jumps above its running mean."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from typing import Any

import pytest
from torch.optim import lr_scheduler

from functrain.errors import ConfigurationError, MissingMetricWarning, ScheduleStateError
from functrain.schedules import (
    Cosine,
    Plateau,
    Scaled,
    Schedule,
    Sequential,
    Spike,
    Warmup,
    from_torch,
)


def scales(schedule: Spike, losses: Iterable[float]) -> list[float]:
    """Return what is left of the lr after each loss."""
    state, found = schedule.init(), []
    for loss in losses:
        state = json.loads(json.dumps(schedule.observe(schedule.advance(state), loss)))
        found.append(state["scale"])
    return found


def noisy(count: int, seed: int = 0) -> list[float]:
    source = random.Random(seed)
    return [2.0 + source.gauss(0, 0.1) for _ in range(count)]


@pytest.mark.row(20)
def test_noise_is_no_spike_and_a_jump_is_one() -> None:
    losses = noisy(400)
    assert set(scales(Spike(1.0), losses)) == {1.0}
    losses[300] = 3.0  # ten deviations
    found = scales(Spike(1.0), losses)
    assert found[299] == 1.0
    assert set(found[300:]) == {0.5}


@pytest.mark.row(20)
def test_a_jump_before_the_burn_in_is_over_is_none() -> None:
    losses = noisy(400)
    losses[99] = 9.0
    assert set(scales(Spike(1.0, burn_in=100), losses)) == {1.0}
    # It widens the deviation as much as it is, so it is the first loss after that counts.
    assert scales(Spike(1.0, burn_in=99), losses)[99] == 0.5


@pytest.mark.row(20)
def test_one_jump_does_not_hide_the_next() -> None:
    losses = noisy(400)
    losses[200], losses[260] = 1e9, 5.0
    found = scales(Spike(1.0, cooldown=10), losses)
    assert (found[199], found[200], found[259], found[260]) == (1.0, 0.5, 0.5, 0.25)
    assert found[-1] == 0.25


@pytest.mark.row(20)
def test_a_new_level_of_losses_ends_the_reductions() -> None:
    losses = noisy(300) + [loss + 3 for loss in noisy(3000)]
    found = scales(Spike(1.0, cooldown=0), losses)
    assert found[-1] == found[400] == 0.5**17  # without a cooldown
    assert scales(Spike(1.0), losses)[-1] == 0.5


@pytest.mark.row(20)
def test_the_relative_threshold() -> None:
    schedule = Spike(1.0, threshold=0.5, threshold_mode="rel", burn_in=2, cooldown=0)
    assert scales(schedule, [2.0, 2.0, 3.0]) == [1.0, 1.0, 1.0]
    assert scales(schedule, [2.0, 2.0, 3.0001]) == [1.0, 1.0, 0.5]
    assert scales(schedule, [-2.0, -2.0, -1.0, -0.5]) == [1.0, 1.0, 1.0, 0.5]


@pytest.mark.row(20)
@pytest.mark.parametrize(
    ("options", "losses", "expected"),
    [
        # Patience bears spikes in a row.
        ({"patience": 2, "cooldown": 0}, [2, 2, 90, 90, 2, 90, 90, 90], [1.0] * 7 + [0.5]),
        # Nothing counts in the cooldown.
        ({"cooldown": 2, "decay": 0}, [1, 1, 9, 99, 999, 9999], [1.0, 1.0, 0.5, 0.5, 0.5, 0.25]),
        # The lr comes back by recovery, and not beyond.
        ({"cooldown": 1, "recovery": 1.5}, [1, 1, 9, 1, 1, 1, 1], [1, 1, 0.5, 0.5, 0.75, 1, 1]),
    ],
    ids=["patience", "cooldown", "recovery"],
)
def test_how_spikes_count(options: Any, losses: list[float], expected: list[float]) -> None:
    schedule = Spike(1.0, burn_in=2, threshold_mode="rel", threshold=1, **options)
    assert scales(schedule, losses) == expected


@pytest.mark.row(20)
def test_the_floor_is_a_part_of_the_lr() -> None:
    schedule = Spike(Cosine(1.0, steps=100), burn_in=1, cooldown=0, floor=0.2)
    state = schedule.init()
    for loss in [1.0, *[math.inf] * 10]:
        state = schedule.observe(schedule.advance(state), loss)
    assert state["scale"] == 0.2
    assert schedule.lr(state, 50) == 0.2 * Cosine(1.0, steps=100)(50)


@pytest.mark.row(20)
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_a_spike_and_stays_out_of_the_mean(loss: float) -> None:
    schedule = Spike(1.0, burn_in=50)
    before = schedule.observe(schedule.init(), 2.0)
    after = schedule.observe(before, loss)
    assert (after["mean"], after["variance"], after["seen"]) == (2.0, 0.0, 1)
    assert after["scale"] == 0.5


def test_losses_that_do_not_change_are_borne() -> None:
    assert set(scales(Spike(1.0, burn_in=5), [2.0] * 50 + [2.001] * 50)) == {1.0}
    assert scales(Spike(1.0, burn_in=5, cooldown=0, eps=0), [0.0] * 9 + [0.1] * 9)[-1] >= 0.5**3


def test_the_averages_are_plain_until_there_are_enough() -> None:
    schedule, losses = Spike(1.0, burn_in=1000, decay=0.99), noisy(50)
    state = schedule.init()
    for loss in losses:
        state = schedule.observe(state, loss)
    mean = sum(losses) / 50
    assert state["mean"] == pytest.approx(mean, rel=1e-12)
    spread = sum((loss - mean) ** 2 for loss in losses) / 50
    assert state["variance"] == pytest.approx(spread, rel=1e-12)


@pytest.mark.row(20)
def test_a_missing_loss_is_a_no_op_with_a_notice() -> None:
    schedule = Spike(1.0)
    state = schedule.observe(schedule.init(), 1.0)
    with pytest.warns(MissingMetricWarning, match="Spike was shown no loss"):
        assert schedule.observe(state, None) is state


def test_no_step_determines_the_lr() -> None:
    with pytest.raises(ScheduleStateError, match=r"schedule\.lr\(state, step\)"):
        Spike(1.0)(3)


@pytest.mark.row(20)
def test_what_a_schedule_observes() -> None:
    assert Cosine(1.0).observes is None
    assert Plateau(1.0).observes == "evaluation"
    assert Plateau(1.0, observes="step").observes == "step"
    assert Spike(Cosine(1.0)).observes == "step"
    assert from_torch(lr_scheduler.StepLR, lr=1.0, step_size=1).observes is None
    assert from_torch(lr_scheduler.ReduceLROnPlateau, lr=1.0).observes == "evaluation"
    outer: list[Schedule] = [
        Warmup(0.1, 5, then=Spike(1.0)),
        Scaled(Spike(1.0), 0.5),
        Sequential([0.1, Spike(1.0)], boundaries=[5]),
    ]
    assert [schedule.observes for schedule in outer] == ["step"] * 3


def test_losses_and_evaluations_do_not_mix() -> None:
    with pytest.raises(ConfigurationError, match=r"Spike observes .* Plateau inside it"):
        Spike(Plateau(1.0))
    with pytest.raises(ConfigurationError, match="Sequential: some of its schedules"):
        Sequential([Plateau(1.0), Spike(1.0)], boundaries=[5])
    schedule = Spike(Plateau(1.0, patience=0, factor=0.1, observes="step"), burn_in=1)
    state = schedule.observe(schedule.observe(schedule.init(), 1.0), math.inf)
    assert schedule.lr(state, 2) == pytest.approx(0.05)


def test_one_loss_beyond_all_bounds_does_not_blind_it() -> None:
    schedule = Spike(1.0, burn_in=2, cooldown=0)
    state = schedule.init()
    for loss in [1e200, 1.0, 1.0, 1.0, 1.0, 1e9]:
        state = schedule.observe(state, loss)
    assert math.isfinite(state["variance"])
    assert state["scale"] < 1.0


def test_what_could_never_recover_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give a floor above 0"):
        Spike(1.0, factor=0.0, recovery=2.0)
    assert Spike(1.0, factor=0.0, recovery=2.0, floor=0.1).floor == 0.1
