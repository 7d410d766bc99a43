"""The schedule when a run begins or resumes: known before anything is written, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import functrain as ft
from functrain.errors import (
    RecipeChangedWarning,
    ScheduleEndedWarning,
    ScheduleStateError,
    UnknownLengthError,
)
from functrain.schedules import (
    Constant,
    Cosine,
    Joined,
    Linear,
    Plateau,
    Sequential,
    Spike,
    Warmup,
    WarmupCosine,
)
from functrain.schedules.resuming import resumed

BATCHES = [torch.full((2, 3), float(index)) for index in range(10)]


def program(lr: Any) -> ft.Program:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    return ft.program(model, lambda m, batch: m(batch).square().mean(), ft.optim.SGD(lr=lr))


def fit(lr: Any, until: Any, directory: Path) -> ft.Run:
    return ft.fit(program(lr), BATCHES, until=until, eval_data=BATCHES[:1], directory=directory)


def test_a_run_whose_length_is_unknown_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(UnknownLengthError, match="samples and minutes do not determine it"):
        fit(Cosine(0.01), ft.Samples(40), tmp_path / "run")
    assert not (tmp_path / "run").exists() or not ft.Checkpoints(tmp_path / "run").steps()
    run = fit(Cosine(0.01, steps=30), ft.Samples(40), tmp_path / "run")
    assert run.state.scheduler == {"horizon": 30}


def test_a_saved_state_without_a_length_gets_that_of_the_schedule() -> None:
    schedules = program(Cosine(0.01, steps=100)).schedules
    assert resumed(schedules, {"horizon": None}) == {"horizon": 100}
    assert resumed(schedules, {"horizon": 7}) == {"horizon": 7}


OTHERS = [
    (Cosine(0.01), Warmup(0.1, steps=3, then=Cosine(0.01))),
    (Cosine(0.01), WarmupCosine(0.01, warmup_steps=2)),
    (Cosine(0.01), Spike(Cosine(0.01))),
    (Cosine(0.01), Plateau(0.01, observes="step")),
    (0.01, Cosine(0.01)),
    (Cosine(0.01), Constant(0.01)),
    (Sequential([0.1, 0.01], [3]), Sequential([0.1, 0.01, 0.001], [3, 5])),
    (Sequential([0.1, 0.01], [3]), Joined([(0.5, 0.1), (0.5, 0.01)])),
    (Joined([(0.5, 0.1), (0.5, 0.01)]), Joined([(0.5, 0.1), (0.3, 0.01), (0.2, 0.001)])),
]


@pytest.mark.parametrize(("before", "after"), OTHERS)
def test_a_schedule_of_another_kind_is_refused_by_name(
    before: Any, after: Any, tmp_path: Path
) -> None:
    fit(before, ft.Steps(10), tmp_path)
    told = pytest.raises(ScheduleStateError, match="was made with another learning rate schedule")
    with pytest.warns(RecipeChangedWarning), told:
        fit(after, ft.Steps(20), tmp_path)
    assert ft.Checkpoints(tmp_path).steps()[-1] == 10


def test_a_longer_run_warns_that_its_curve_has_ended(tmp_path: Path) -> None:
    fit(Cosine(0.01, end=0.001), ft.Steps(10), tmp_path)
    with pytest.warns(ScheduleEndedWarning, match=r"ends at update 10.*now continues to 20"):
        run = fit(Cosine(0.01, end=0.001), ft.Steps(20), tmp_path)
    assert run.state.scheduler == {"horizon": 10}


def test_a_schedule_within_another_has_not_ended_before_its_run(tmp_path: Path) -> None:
    """Its horizon is that of its own stretch. Warnings are errors here."""
    for until in (4, 10, 10):
        lr = Warmup(0.1, steps=3, then=Cosine(0.01, end=0.001))
        run = fit(lr, [ft.Steps(10), ft.Samples(2 * until)], tmp_path)
        assert run.state.counters.step == until


def test_a_changed_proportion_does_not_move_the_boundaries_of_a_run() -> None:
    first = Joined([(0.5, Linear(0.01)), (0.5, Cosine(0.01))], steps=20)
    other = Joined([(0.9, Linear(0.01)), (0.1, Cosine(0.01))], steps=20)
    state = first.init()
    for _ in range(12):
        state = first.advance(state)
    assert [other.lr(state, step) for step in range(12, 20)] == [
        first.lr(state, step) for step in range(12, 20)
    ]


def test_torch_schedules_are_resumed(tmp_path: Path) -> None:
    step_lr = ft.schedules.from_torch(torch.optim.lr_scheduler.StepLR, lr=0.1, step_size=4)
    fit(Warmup(0.1, 2, then=step_lr), ft.Steps(10), tmp_path / "cut")
    cut = fit(Warmup(0.1, 2, then=step_lr), ft.Steps(20), tmp_path / "cut")
    whole = fit(Warmup(0.1, 2, then=step_lr), ft.Steps(20), tmp_path / "whole")
    assert cut.state.scheduler == whole.state.scheduler
    assert ft.tree.diff(cut.state.params, whole.state.params) == []
