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
from mistakes.mistake import X, linear, program, squared, step


def looking(model: nn.Module, batch: Tensor) -> Tensor:
    return squared(model, batch) * (2.0 if batch.sum().item() > 0 else 1.0)


def with_object(model: nn.Module, batch: Any) -> Tensor:
    return squared(model, batch["x"])


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


MISTAKES = {
    errors.CaptureError: [
        (
            lambda: step(ft.compiled(program(looking), backend="eager")),
            "transformations.py … .item() … fallback=True",
        ),
        (
            lambda: step(
                ft.compiled(program(with_object), backend="eager"), {"x": X, "y": object()}
            ),
            "a object in the batch … containers of tensors, numbers and strings",
        ),
    ],
    errors.CompilationError: [
        (
            lambda: step(ft.compiled(program(), backend=broken)),
            "RuntimeError: no compiler … apt install g++ … fallback=True",
        ),
    ],
    errors.FallbackWarning: [
        (
            lambda: step(ft.compiled(program(looking), backend="eager", fallback=True)),
            "runs eagerly … transformations.py",
        ),
    ],
    errors.CompileCacheWarning: [
        (open_cache, "others can write to … FUNCTRAIN_CACHE_DIR="),
    ],
    errors.RecompileWarning: [
        (many_shapes, "8 forms of batch … pad, drop the last batch"),
    ],
    errors.ImpurityError: [
        (
            lambda: testing.check_pure(in_place, {"w": torch.zeros(2)}, torch.ones(3)),
            "train_step is not pure … state['w'] was changed: 2 of 2 elements … "
            "new_state['w'] shares memory with state['w']",
        ),
    ],
    errors.ResumptionError: [
        (
            lambda: testing.check_resumes(counting.make, steps=4, cuts=[2]),
            "is not the run that was never cut … step … params",
        ),
    ],
    errors.IncompleteError: [
        (
            lambda: testing.check_complete(counting.make()),  # without fresh processes
            "gives other bytes when it is repeated … a step changed … CALLS",
        ),
    ],
    errors.ConfigurationError: [
        (
            lambda: ft.sharpness_aware(ft.compiled(program(model=linear))),
            "sharpness_aware takes an eager program … apply it before compiled",
        ),
    ],
}
