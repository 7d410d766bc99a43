"""The values of ``resume=``, and what is no checkpoint in a run directory."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import functrain as ft
from functrain import errors


def fit(directory: Path | None, until: str = "4 steps", **options: Any) -> ft.Run:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    made = ft.program(lambda: torch.nn.Linear(2, 1), loss, ft.optim.Adam(lr=0.1))
    data = [torch.ones(2, 2)] * 2
    return ft.fit(made, data, until=until, directory=directory, **options)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(
    ("resume", "told"),
    [
        ("bset", "did you mean 'best'?"),
        ("Latest", "did you mean 'latest'?"),
        ("2", "write resume=2"),
        ("", "expected a path"),
        (2.0, "did you mean 2?"),
        (2.5, "a step such as 14, or a path; got 2.5"),
        (-2, "got -2"),
        (None, "got None"),
        (["best"], "got ['best']"),
    ],
)
def test_a_value_that_is_neither_is_refused(
    resume: Any, told: str, held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "run"
    if held:
        fit(directory)
    with pytest.raises((errors.ConfigurationError, errors.NoCheckpointError)) as refused:
        fit(directory, resume=resume)
    assert told in str(refused.value)


@pytest.mark.parametrize("step", [2, np.int64(2), torch.tensor(2)])
def test_a_step_is_any_whole_number(step: Any, tmp_path: Path) -> None:
    fit(tmp_path, save_every="1 step")
    assert fit(tmp_path, resume=step).new_steps == 2


@pytest.mark.parametrize("name", ["parent", "14", "."])
def test_a_text_that_is_there_is_a_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(Path(name))
    assert fit(tmp_path / "fork", "6 steps", resume=name).new_steps == 2
    if name != ".":  # the same call goes on without its parent
        shutil.rmtree(name)
        assert fit(tmp_path / "fork", "6 steps", resume=name).new_steps == 0


def test_a_file_named_like_a_checkpoint_is_skipped_and_kept(tmp_path: Path) -> None:
    fit(tmp_path)
    (tmp_path / "step-00000009").write_text("mine")
    with pytest.warns(errors.CheckpointSkippedWarning, match="it is a file"):
        assert fit(tmp_path).new_steps == 0
    assert (tmp_path / "step-00000009").read_text() == "mine"


def test_a_file_named_like_the_only_checkpoint_is_called_a_file(tmp_path: Path) -> None:
    (tmp_path / "step-00000009").write_text("mine")
    for resume in (True, 9):
        with (
            pytest.warns(errors.CheckpointSkippedWarning) if resume is True else nullcontext(),
            pytest.raises(errors.FunctrainError, match="step-00000009: it is a file"),
        ):
            fit(tmp_path, resume=resume)
    assert (tmp_path / "step-00000009").read_text() == "mine"
