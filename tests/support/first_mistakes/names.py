"""Attributes and names that are elsewhere, or misspelt."""

from __future__ import annotations

from typing import Any

import functrain as ft
from first_mistakes.parts import First, X, Y, batches, cross_entropy, fit, program, step

_ft: Any = ft


def _state() -> Any:
    return program().init(seed=0)


def _assign(name: str, value: object) -> None:
    setattr(_state(), name, value)


def _set_weight() -> None:
    _state().params["head.bias"] = X


FIRST = [
    First(lambda: _ft.Trainer, "no attribute 'Trainer'", "'functrain'", "functrain.fit(program"),
    First(lambda: _ft.AdamW, "no attribute 'AdamW'", "'functrain'", "functrain.optim.AdamW"),
    First(lambda: _ft.EarlyStopping, "no attribute", "'EarlyStopping'", "functrain.EarlyStop("),
    First(lambda: _ft.optim.adamw, "no attribute 'adamw'", "'functrain.optim'", "'AdamW'"),
    First(
        lambda: _ft.data.DataLoader,
        "no attribute 'DataLoader'",
        "'functrain.data'",
        "functrain.data.Batches(",
    ),
    First(
        lambda: _ft.schedules.ReduceLROnPlateau,
        "no attribute 'ReduceLROnPlateau'",
        "'functrain.schedules'",
        "Plateau(",
    ),
    First(
        lambda: _ft.listeners.WandbLogger, "no attribute", "'functrain.listeners'", "WandB(project)"
    ),
    First(
        lambda: program().zero_grad(), "no attribute 'zero_grad'", "Program", "program.train_step"
    ),
    First(lambda: program().fit(batches()), "no attribute 'fit'", "Program", "functrain.fit("),
    First(lambda: program().parameters(), "no attribute 'parameters'", "Program", "state.params"),
    First(lambda: _state().step, "no attribute 'step'", "TrainState", "state.counters.step"),
    First(
        lambda: _state().state_dict(), "no attribute", "TrainState", "functrain.save(path, state)"
    ),
    First(lambda: _state().opt_state, "no attribute 'opt_state'", "TrainState", "state.optimizer"),
    First(lambda: _state().parms, "no attribute 'parms'", "TrainState", "'params'"),
    First(
        lambda: _assign("params", {}), "cannot be assigned", "state.params", "attrs.evolve(state"
    ),
    First(_set_weight, "read-only", "state.params", "attrs.evolve(state"),
    First(
        lambda: _state().params["head.weigth"], "no 'head.weigth'", "of the state", "'head.weight'"
    ),
    First(lambda: _state().buffers["mean"], "no 'mean'", "of the state", "it has nothing"),
    First(lambda: step()[1]["acc"], "no 'acc'", "this step", "functrain.Loss(value, metrics="),
    First(lambda: step()[1]["grad_nrom"], "no 'grad_nrom'", "this step", "'grad_norm'"),
    First(
        lambda: fit(eval_data=batches()).history["val_loss"],
        "no 'val_loss'",
        "this history",
        "'eval/loss'",
    ),
    First(
        lambda: step(lambda model, batch: cross_entropy(model, batch["y"]), {"x": X, "labels": Y}),
        "'y'",
        "in the loss, in the step after step 0",
        "the batch has the keys ['x', 'labels']",
    ),
    First(
        lambda: ft.load("/nowhere/run"),
        "there is no checkpoint",
        "/nowhere/run",
        "/ has ",
    ),
]
