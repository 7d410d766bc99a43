"""Mistakes in running: listeners, directories, limits, and resuming with changes."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors
from functrain.training.events import BatchEnd
from mistakes.parts import X, batches, fit, program, squared


class Failing:
    def on_batch_end(self, event: BatchEnd) -> None:
        raise KeyError("accuracy")


def nan_later(model: nn.Module, batch: Tensor) -> Tensor:
    return squared(model, batch) * (float("nan") if batch[0, 0] > 0.5 else 1.0)


def no_number(model: nn.Module, batch: Tensor) -> Tensor:
    return torch.tensor(float("nan"))


def nothing_left(path: Path) -> None:
    fit("2 steps", directory=path)
    fit("2 steps", directory=path, program=program(clip_norm=1.0), data=[-X, X])


def shorter(path: Path) -> None:
    fit("4 steps", directory=path)
    fit("2 steps", directory=path)


def shortened_log(path: Path) -> None:
    fit("2 steps", directory=path)
    (path / "metrics.jsonl").write_text("")
    fit("4 steps", directory=path)


def again(path: Path, **options: Any) -> None:
    fit("2 steps", directory=path)
    fit("4 steps", directory=path, **options)


def busy(path: Path, patches: pytest.MonkeyPatch) -> None:
    # On another file system of the same name: there the lock of this process is not its own.
    with ft.Checkpoints(path).lock():
        patches.setattr(socket, "gethostname", lambda: "elsewhere")
        fit(directory=path)


def file_there(path: Path) -> Path:
    (path / "file").write_text("")
    return path / "file"


MISTAKES = [
    (
        errors.ListenerError,
        lambda: fit(listeners=[Failing()]),
        "Failing.on_batch_end failed at step 1",
    ),
    (
        errors.NonFiniteWarning,
        lambda: fit(program=program(nan_later), data=[X, X[-2:]]),
        "step 1: the loss is nan",
    ),
    (
        errors.MissingMetricWarning,
        lambda: fit(eval_data=batches(), restore_best=True, program=program(evaluate=no_number)),
        "the state is the last one",
    ),
    (
        errors.RecipeChangedWarning,
        lambda path: again(path, program=program(clip_norm=1.0)),
        "from here on it is not the run that was started",
    ),
    (errors.RunChangedError, nothing_left, "recipe.clip_norm: None in"),
    (errors.ResumeWarning, shorter, "beyond the 2 of this until"),
    (
        errors.CheckpointMismatchError,
        lambda path: again(path, program=program(model=lambda: nn.Linear(4, 2))),
        "a run of another model needs another directory",
    ),
    (errors.LogError, shortened_log, "Restore the file, or move the run directory away"),
    (
        errors.NoCheckpointError,
        lambda path: again(path, resume=7),
        "the directory has the steps [2]",
    ),
    (
        errors.RunDirectoryError,
        lambda path: fit(directory=file_there(path)),
        "file cannot be used: Not a directory",
    ),
    (errors.RunDirectoryBusyError, busy, "wait for it, stop it, or choose another directory"),
]
