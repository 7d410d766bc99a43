"""``functrain ls --tree``: which run goes back to which."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import functrain as ft

pytestmark = pytest.mark.row(54)
Run = Callable[..., Any]


def loss(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


def train(directory: Path, until: int, lr: float = 0.1, **options: Any) -> ft.Run:
    torch.manual_seed(0)
    program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=lr))
    data = [torch.ones(4, 2), torch.ones(4, 2) / 2]
    every = {"eval_every": "2 steps", "save_every": "2 steps", "eval_data": data[:1]}
    store = ft.Checkpoints(directory)
    return ft.fit(program, data, until=f"{until} steps", directory=store, **every, **options)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run; a fork of it; a fork of the fork; and a rewind of the first."""
    runs = tmp_path / "runs"
    train(runs / "base", 8)
    train(runs / "fork", 10, resume=runs / "base" / "step-00000004")
    train(runs / "nested" / "again", 12, resume=runs / "fork" / "step-00000010")
    train(runs / "base", 6, resume=2)
    train(runs / "other", 2)
    return runs


def test_forks_and_steps_set_aside_are_below_their_origin(functrain: Run, runs: Path) -> None:
    out = functrain("ls", "--tree", runs, width=200).out
    lines = [line.rstrip() for line in out.splitlines()][2:]
    names = [line.lstrip("│├└─ \N{NO-BREAK SPACE}").split("  ")[0] for line in lines]
    assert names == ["base", "set-aside-from-00000004-to-00000008", "fork", "nested/again", "other"]
    words = [re.split(r" {2,}", line.lstrip("│├└─ \N{NO-BREAK SPACE}"))[1:] for line in lines]
    assert [each[:2] for each in words[:4]] == [
        ["2 to 6", "loss"],
        ["set aside after step 2", "4 to 8"],
        ["forked at step 4", "6 to 10"],
        ["forked at step 10", "12"],
    ]
    assert [line.startswith(("├", "└")) for line in lines] == [False, True, True, False, False]
    assert all(re.search(r"loss  +\S+ at \d+  +\S+ at \d+$", line) for line in lines)


def test_json_has_origins_and_metrics(functrain: Run, runs: Path) -> None:
    found = {
        Path(each["path"]).name: each
        for each in functrain("ls", "--tree", runs, "--json").json["runs"]
    }
    kinds = {name: (each["kind"], each["step"], each["problem"]) for name, each in found.items()}
    assert kinds == {
        "base": ("run", None, None),
        "set-aside-from-00000004-to-00000008": ("set aside", 2, None),
        "fork": ("fork", 4, None),
        "again": ("fork", 10, None),
        "other": ("run", None, None),
    }
    assert found["again"]["parent"] == str((runs / "fork").resolve())
    store = ft.Checkpoints(runs / "fork")
    best = store.best()
    assert best is not None
    assert found["fork"]["best"] == {"step": best, "value": store.entries()[best].metrics["loss"]}
    assert found["fork"]["last"]["step"] == 10
    assert found["fork"]["steps"] == [6, 10]


def test_missing_parents_and_cycles_are_problems(functrain: Run, runs: Path, rewrite: Any) -> None:
    shutil.rmtree(runs / "other")
    for name, parent in (("base", "fork"), ("fork", "base")):
        for checkpoint in (runs / name).glob("step-*"):
            origin = str(runs / parent / "step-00000004")
            rewrite(checkpoint, lambda fields, told=origin: fields["info"].update(parent=told))
    document = functrain("ls", "--tree", runs, "--json").json["runs"]
    problems = {Path(each["path"]).name: each["problem"] for each in document}
    assert problems["base"] == "it is its own ancestor: base <- fork <- base"
    assert problems["fork"] == "it is its own ancestor: fork <- base <- fork"
    assert problems["again"] is None
    assert functrain("ls", "--tree", runs).code == 0
    shutil.rmtree(runs / "base")
    shutil.move(runs / "fork", runs.parent / "fork")
    out = functrain("ls", "--tree", runs, width=300).out
    assert f"{(runs / 'fork').resolve()} is missing" in out
    inside = functrain("ls", "--tree", runs.parent / "fork", width=300).out
    assert f"{(runs / 'base').resolve()} is missing" in inside


def test_a_parent_elsewhere_is_named(functrain: Run, runs: Path) -> None:
    out = functrain("ls", "--tree", runs / "nested", width=300).out
    assert f"{(runs / 'fork').resolve()} is not below this directory" in out


def test_a_directory_without_runs(functrain: Run, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        assert functrain("ls", "--tree", place).refuses(f"functrain: there are no runs in {place}")


@pytest.mark.slow
def test_a_configuration_that_resumes_from_a_path_is_a_fork(functrain: Run, tmp_path: Path) -> None:
    options = ["model.width=4", "data.augment=false", "threads=1", "eval_data=null"]
    options += ["early_stop=null", "fit.save_every=2 steps", "checkpoints.keep_last=9"]
    runs = tmp_path / "runs"
    origin = f"fit.resume={runs}/a/step-00000002"
    for more in (
        ["fit.until=4 steps", f"directory={runs}/a"],
        ["fit.until=6 steps", f"directory={runs}/b", origin, "fit.schedule_end=keep"],
    ):
        assert functrain("train", "digits", *options, *more).code == 0
    found = functrain("ls", "--tree", runs, "--json").json["runs"]
    assert [(each["kind"], each["step"]) for each in found] == [("run", None), ("fork", 2)]
    assert ft.Checkpoints(runs / "b").steps() == [4, 6]


def test_a_folder_of_runs_is_listed_without_an_option(functrain: Run, runs: Path) -> None:
    assert functrain("ls", runs).out == functrain("ls", "--tree", runs).out
    assert functrain("ls", runs.parent, "--json").json["runs"] != []
    assert "checkpoints" in functrain("ls", runs / "base", "--json").json
    assert functrain("ls", runs / "base" / "step-00000002").code == 0


def test_a_folder_with_a_similar_name_is_no_checkpoint(functrain: Run, runs: Path) -> None:
    before = functrain("ls", runs).out
    (runs / "nested" / "step-7").mkdir()
    assert functrain("ls", runs).out == before


def test_without_an_argument_the_runs_below_the_working_directory(
    functrain: Run, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    assert "nested/again" in functrain("ls", width=200).out
