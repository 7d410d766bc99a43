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
from mistakes.mistake import X, batches, fit, program, squared


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


def another_state(path: Path) -> None:
    state = fit("3 steps").state
    fit("2 steps", directory=path)
    fit("4 steps", directory=path, state=state)


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


MISTAKES = {
    errors.ListenerError: [
        (
            lambda: fit(listeners=[Failing()]),
            "Failing.on_batch_end failed at step 1 … KeyError: 'accuracy' … "
            "Fix it and call fit again",
        ),
    ],
    errors.ConfigurationError: [
        (
            lambda: fit(early_stop="eval/loss"),
            "early_stop … functrain.EarlyStop('eval/loss', patience=5) … got 'eval/loss'",
        ),
        (
            lambda path: ft.Checkpoints(path, mode="lowest"),
            "Checkpoints: mode … 'min', 'max' or None … got 'lowest'",
        ),
        (lambda: fit(until=[]), "until is empty … '10 epochs'"),
        (
            lambda: ft.EarlyStop("eval/score").observe({"best": None}, {"eval/score": 0.5}),
            "EarlyStop: 'eval/score' … Give mode='min' (less is better) or mode='max'",
        ),
        (
            lambda: fit(state=program().init(seed=1), seed=2),
            "seed=2 has no effect … whose seed is 1 … leave seed= out … ft.fork(state, seed=2)",
        ),
        (
            lambda path: again(path, resume=False),
            "holds a run already … Choose another directory … resume=True",
        ),
        (
            lambda path: ft.Checkpoints(path, keep_last=0),
            "keep_last … expected an integer >= 1 or None … got 0",
        ),
        (lambda: ft.EarlyStop("eval/loss", patience=0), "patience … >= 1 … got 0"),
    ],
    errors.NonFiniteWarning: [
        (
            lambda: fit(program=program(nan_later), data=[X, X[-2:]]),
            'step 1: the loss is nan … weight … Lower the learning rate … nonfinite="skip"',
        ),
    ],
    errors.MissingMetricWarning: [
        (
            lambda: fit(
                eval_data=batches(), restore_best=True, program=program(evaluate=no_number)
            ),
            "restore_best … 'loss' … the state is the last one",
        ),
    ],
    errors.RecipeChangedWarning: [
        (
            lambda path: again(path, program=program(clip_norm=1.0)),
            "from here on it is not the run that was started … clip_norm",
        ),
    ],
    errors.RunChangedError: [
        (
            nothing_left,
            "nothing is left to train … recipe.clip_norm: None in … 1.0 now … data.contents … "
            "Choose another directory … remove … a longer until",
        ),
        (
            lambda path: again(path, seed=3),
            "seed=3 has no effect … whose seed is 0 … leave seed= out … "
            "Choose another directory … ft.fork(state, seed=3)",
        ),
    ],
    errors.ResumeWarning: [
        (shorter, "is at step 4 … beyond the 2 of this until … another directory … resume=STEP"),
        (
            another_state,
            "the state of step 3 … its own checkpoint of step 2 … Choose another directory … "
            "leave state= out",
        ),
    ],
    errors.CheckpointMismatchError: [
        (
            lambda path: again(path, program=program(model=lambda: nn.Linear(4, 2))),
            "weight … [2, 4] … [1, 4] … a run of another model needs another directory",
        ),
    ],
    errors.LogError: [
        (
            shortened_log,
            "metrics.jsonl has 0 bytes … rows were lost … "
            "Restore the file, or move the run directory away",
        ),
    ],
    errors.NoCheckpointError: [
        (
            lambda path: again(path, resume=7),
            "there is no checkpoint at … step-00000007 … the directory has the steps [2]",
        ),
    ],
    errors.RunDirectoryError: [
        (
            lambda path: fit(directory=file_there(path)),
            "file cannot be used: Not a directory … Choose another",
        ),
    ],
    errors.RunDirectoryBusyError: [
        (busy, "is writing to … wait for it, stop it, or choose another directory"),
    ],
    errors.UnsupportedError: [
        (
            lambda path: ft.save(path / "c", {"params": torch.ones(1), "loss": squared}),
            "loss is a builtins.function … a checkpoint holds tensors",
        ),
    ],
}
