"""Mistakes under compilation, and faults that checks of a program find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors, testing
from functrain.transforms.compile_cache import cached
from mistakes import counting
from mistakes.parts import program, squared, step


def looking(model: nn.Module, batch: Tensor) -> Tensor:
    return squared(model, batch) * (2.0 if batch.sum().item() > 0 else 1.0)


def broken(graph: object, inputs: object) -> Any:
    raise RuntimeError("no compiler")


def many_shapes() -> None:
    made = ft.compiled(program(), backend="eager")
    state = made.init()
    for rows in range(1, 11):
        state, _ = made.train_step(state, torch.ones(rows, 4))


def open_cache(directory: Path, patches: pytest.MonkeyPatch) -> None:
    directory.chmod(0o777)
    patches.setenv("FUNCTRAIN_CACHE_DIR", str(directory))
    cached(ft.compiled(program()))


def in_place(state: dict[str, Tensor], batch: Tensor) -> tuple[Any, dict[str, Tensor]]:
    state["w"] += batch.mean()
    return state, {"loss": batch.sum()}


MISTAKES = [
    (
        errors.CaptureError,
        lambda: step(ft.compiled(program(looking), backend="eager")),
        "transformations.py",
    ),
    (
        errors.CompilationError,
        lambda: step(ft.compiled(program(), backend=broken)),
        "RuntimeError: no compiler",
    ),
    (
        errors.FallbackWarning,
        lambda: step(ft.compiled(program(looking), backend="eager", fallback=True)),
        "transformations.py",
    ),
    (errors.RecompileWarning, open_cache, "FUNCTRAIN_CACHE_DIR="),
    (errors.RecompileWarning, many_shapes, "pad, drop the last batch"),
    (
        errors.ImpurityError,
        lambda: testing.check_pure(in_place, {"w": torch.zeros(2)}, torch.ones(3)),
        "new_state['w'] shares memory with state['w']",
    ),
    (
        errors.ResumptionError,
        lambda: testing.check_resumes(counting.make, steps=4, cuts=[2]),
        "is not the run that was never cut",
    ),
    (
        errors.IncompleteError,
        lambda: testing.check_complete(counting.make()),
        "gives other bytes when it is repeated",
    ),
]
