"""Attributes and names that are elsewhere, or misspelt."""

from __future__ import annotations

from typing import Any

import functrain as ft
from first_mistakes.parts import X, Y, batches, cross_entropy, fit, program, step


def _state() -> Any:
    return program().init(seed=0)


def _assign(name: str, value: object) -> None:
    setattr(_state(), name, value)


def _set_weight() -> None:
    _state().params["head.bias"] = X


FIRST = [
    (lambda: ft.Trainer, "'functrain' … no attribute 'Trainer' … functrain.fit(program"),
    (lambda: ft.AdamW, "'functrain' … no attribute 'AdamW' … functrain.optim.AdamW"),
    (lambda: ft.EarlyStopping, "no attribute … 'EarlyStopping' … functrain.EarlyStop("),
    (lambda: ft.optim.adamw, "'functrain.optim' … no attribute 'adamw' … 'AdamW'"),
    (
        lambda: ft.data.DataLoader,
        "'functrain.data' … no attribute 'DataLoader' … functrain.data.Batches(",
    ),
    (
        lambda: ft.schedules.ReduceLROnPlateau,
        "'functrain.schedules' … no attribute 'ReduceLROnPlateau' … Plateau(",
    ),
    (lambda: ft.listeners.WandbLogger, "'functrain.listeners' … no attribute … WandB(project)"),
    (lambda: program().zero_grad(), "Program … no attribute 'zero_grad' … program.train_step"),
    (lambda: program().fit(batches()), "Program … no attribute 'fit' … functrain.fit("),
    (lambda: program().parameters(), "Program … no attribute 'parameters' … state.params"),
    (lambda: _state().step, "TrainState … no attribute 'step' … state.counters.step"),
    (lambda: _state().state_dict(), "TrainState … no attribute … functrain.save(path, state)"),
    (lambda: _state().opt_state, "TrainState … no attribute 'opt_state' … state.optimizer"),
    (lambda: _state().parms, "TrainState … no attribute 'parms' … 'params'"),
    (lambda: _assign("params", {}), "state.params … cannot be assigned … attrs.evolve(state"),
    (_set_weight, "read-only … attrs.evolve(state … state.params"),
    (lambda: _state().params["head.weigth"], "of the state … no 'head.weigth' … 'head.weight'"),
    (lambda: _state().buffers["mean"], "of the state … no 'mean' … it has nothing"),
    (lambda: step()[1]["acc"], "this step … no 'acc' … functrain.Loss(value, metrics="),
    (lambda: step()[1]["grad_nrom"], "this step … no 'grad_nrom' … 'grad_norm'"),
    (
        lambda: fit(eval_data=batches()).history["val_loss"],
        "this history … no 'val_loss' … 'eval/loss'",
    ),
    (
        lambda: step(lambda model, batch: cross_entropy(model, batch["y"]), {"x": X, "labels": Y}),
        "'y' … in the loss, in the step after step 0 … the batch has the keys ['x', 'labels']",
    ),
    (lambda: ft.load("/nowhere/run"), "there is no checkpoint … /nowhere/run … / has "),
]
