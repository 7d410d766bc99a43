"""``functrain train`` of a population: hyperparameters and seeds by member."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import functrain as ft
from functrain.view.plain_text import number

MEMBERS = "population={hyperparameters: {0.weight_decay: [0.0, 0.1]}, seeds: [3, 4]}"
SCHEDULES = (
    "population={hyperparameters: {0.lr: [{_target_: functrain.schedules.Linear, lr: 0.1},"
    " {_target_: functrain.schedules.Linear, lr: 0.2}]}}"
)
SHORT = ("fit.until=2 steps", "fit.eval_every=1 step", "eval_data.batch_size=64")


def test_train_makes_a_population_and_resumes_it(
    functrain: Callable[..., Any], tmp_path: Path
) -> None:
    where = tmp_path / "run"
    ended = functrain("train", "digits", MEMBERS, *SHORT, f"directory={where}", width=120)
    assert ended.code == 0, ended.err
    history = ft.History.read(where)
    assert len(history["eval/loss"][-1]) == 2
    words = " ".join(ended.out.split())
    assert "members" in words
    best = min(range(2), key=lambda member: history["eval/loss"][-1][member])
    assert f"(member {best}) to" in words
    more = ("train", "digits", MEMBERS, *SHORT, f"directory={where}")
    ended = functrain(*more, "fit.until=3 steps", "fit.schedule_end=stretch")
    assert ended.code == 0, ended.err
    assert len(ft.History.read(where)) == 3


def test_seeds_alone_are_summarized_by_mean_and_spread(
    functrain: Callable[..., Any], tmp_path: Path
) -> None:
    where = tmp_path / "run"
    own = "population={seeds: [0, 1, 2]}"
    ended = functrain("train", "digits", own, *SHORT, f"directory={where}", width=120)
    assert ended.code == 0, ended.err
    last = ft.History.read(where)["eval/loss"][-1]
    mean, std = statistics.fmean(last), statistics.stdev(last)
    assert f"{number(mean)} ± {number(std)} over 3 seeds" in " ".join(ended.out.split())


def test_members_have_schedules_of_their_own(functrain: Callable[..., Any], tmp_path: Path) -> None:
    where = tmp_path / "run"
    ended = functrain("train", "digits", SCHEDULES, *SHORT, f"directory={where}")
    assert ended.code == 0, ended.err
    assert ft.History.read(where)["lr.0"] == [[0.1, 0.2], [0.05, 0.1]]


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("population={hyperparameters: {weight_decay: [0.0, 0.1]}}", "did you mean '"),
        ("population={seed: [1, 2]}", "did you mean 'seeds'?"),
        ("population={}", "expected hyperparameters or seeds"),
    ],
)
def test_mistakes_name_the_key(
    functrain: Callable[..., Any], tmp_path: Path, option: str, why: str
) -> None:
    ended = functrain("train", "digits", option, f"directory={tmp_path / 'run'}")
    assert ended.refuses("population", why)
