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
from mistakes.mistake import Mistake, X, batches, fit, program, squared


class Failing:
    def on_batch_end(self, event: BatchEnd) -> None:
        raise KeyError("accuracy")


def nan_later(model: nn.Module, batch: Tensor) -> Tensor:
    return squared(model, batch) * (float("nan") if batch[0, 0] > 0.5 else 1.0)


def no_number(model: nn.Module, batch: Tensor) -> Tensor:
    return torch.tensor(float("nan"))


def another_recipe(path: Path) -> None:
    fit("2 steps", directory=path)
    fit("4 steps", directory=path, program=program(clip_norm=1.0))


def another_seed(path: Path) -> None:
    fit("2 steps", directory=path)
    fit("4 steps", directory=path, seed=3)


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


def another_architecture(path: Path) -> None:
    fit("2 steps", directory=path)
    fit("4 steps", directory=path, program=program(model=lambda: nn.Linear(4, 2)))


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
    Mistake(
        errors.ListenerError,
        lambda *_: fit(listeners=[Failing()]),
        ("Failing.on_batch_end failed at step 1", "KeyError: 'accuracy'"),
        ("Fix it and call fit again",),
    ),
    Mistake(
        errors.ListenerError,
        lambda *_: fit(listeners=[print]),
        ("<built-in function print>",),
        ("none of the methods of a listener: on_train_begin",),
    ),
    Mistake(
        errors.ListenerError,
        lambda *_: fit(listeners=[Failing]),
        ("Failing is a class",),
        ("Failing(...)",),
    ),
    Mistake(
        errors.ListenerError,
        lambda *_: fit(listeners=Failing()),
        ("got a Failing",),
        ("listeners=[...]",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: fit(early_stop="eval/loss"),
        ("early_stop", "got 'eval/loss'"),
        ("functrain.EarlyStop('eval/loss', patience=5)",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda path, _: ft.Checkpoints(path, mode="lowest"),  # type: ignore[arg-type]
        ("Checkpoints: mode", "got 'lowest'"),
        ("'min', 'max' or None",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: fit(until=[]),  # type: ignore[arg-type]
        ("until is empty",),
        ("'10 epochs'",),
    ),
    Mistake(
        errors.NonFiniteWarning,
        lambda *_: fit(program=program(nan_later), data=[X, X[-2:]]),
        ("step 1: the loss is nan", "weight"),
        ("Lower the learning rate", 'nonfinite="skip"'),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: ft.EarlyStop("eval/score").observe({"best": None}, {"eval/score": 0.5}),
        ("EarlyStop: 'eval/score'",),
        ("Give mode='min' (less is better) or mode='max'",),
    ),
    Mistake(
        errors.MissingMetricWarning,
        lambda *_: fit(eval_data=batches(), restore_best=True, program=program(evaluate=no_number)),
        ("'loss'",),
        ("restore_best", "the state is the last one"),
    ),
    Mistake(
        errors.RecipeChangedWarning,
        lambda path, _: another_recipe(path),
        ("clip_norm",),
        ("from here on it is not the run that was started",),
    ),
    Mistake(
        errors.RunChangedError,
        lambda path, _: nothing_left(path),
        ("nothing is left to train", "recipe.clip_norm: None in", "1.0 now", "data.contents"),
        ("Choose another directory", "remove", "a longer until"),
    ),
    Mistake(
        errors.RunChangedError,
        lambda path, _: another_seed(path),
        ("seed=3 has no effect", "whose seed is 0"),
        ("leave seed= out", "Choose another directory", "ft.fork(state, seed=3)"),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: fit(state=program().init(seed=1), seed=2),
        ("seed=2 has no effect", "whose seed is 1"),
        ("leave seed= out", "ft.fork(state, seed=2)"),
    ),
    Mistake(
        errors.ResumeWarning,
        lambda path, _: shorter(path),
        ("is at step 4", "beyond the 2 of this until"),
        ("another directory", "resume=STEP"),
    ),
    Mistake(
        errors.ResumeWarning,
        lambda path, _: another_state(path),
        ("the state of step 3", "its own checkpoint of step 2"),
        ("Choose another directory", "leave state= out"),
    ),
    Mistake(
        errors.CheckpointMismatchError,
        lambda path, _: another_architecture(path),
        ("weight", "[1, 4]", "[2, 4]"),
        ("a run of another model needs another directory",),
    ),
    Mistake(
        errors.LogError,
        lambda path, _: shortened_log(path),
        ("metrics.jsonl has 0 bytes", "rows were lost"),
        ("Restore the file, or move the run directory away",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda path, _: again(path, resume=False),
        ("holds a run already",),
        ("Choose another directory", "resume=True"),
    ),
    Mistake(
        errors.NoCheckpointError,
        lambda path, _: again(path, resume=7),
        ("there is no checkpoint at", "step-00000007"),
        ("the directory has the steps [2]",),
    ),
    Mistake(
        errors.RunDirectoryError,
        lambda path, _: fit(directory=file_there(path)),
        ("file cannot be used: Not a directory",),
        ("Choose another",),
    ),
    Mistake(
        errors.RunDirectoryBusyError,
        busy,
        ("is writing to",),
        ("wait for it, stop it, or choose another directory",),
    ),
    Mistake(
        errors.UnsupportedError,
        lambda path, _: ft.save(path / "c", {"params": torch.ones(1), "loss": squared}),
        ("loss is a builtins.function",),
        ("a checkpoint holds tensors",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda path, _: ft.Checkpoints(path, keep_last=0),
        ("keep_last", "got 0"),
        ("expected an integer >= 1 or None",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: ft.EarlyStop("eval/loss", patience=0),
        ("patience", "got 0"),
        (">= 1",),
    ),
]
