"""Data and runs that cannot work."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from first_mistakes.parts import First, Net, X, Y, batches, fit, program

_batches: Any = ft.data.Batches
_fit: Any = ft.fit
_compiled: Any = ft.compiled


FIRST = [
    First(lambda: fit(until=10), "got 10", "a duration needs its unit", '"10 steps"'),
    First(
        lambda: fit(until="ten epochs"), "not a number and a unit", "'ten epochs'", '"0.5 epochs"'
    ),
    First(
        lambda: fit(TensorDataset(X, Y)),
        "holds samples, not batches",
        "TensorDataset",
        "functrain.data.Batches(dataset, batch_size)",
    ),
    First(
        lambda: fit((X, Y)),
        "a tuple of tensors",
        "columns",
        "functrain.data.Batches((x, y), batch_size)",
    ),
    First(
        lambda: _batches((X, Y[:3]), 4), "must be equally long", "column 1 has 3", "column 0 has 16"
    ),
    First(lambda: _batches((X, Y), 0), "got 0", "batch_size", "an integer >= 1"),
    First(lambda: _batches(X, Y), "a tensor of shape (16,)", "batch_size", "an integer >= 1"),
    First(lambda: batches()[0], "got [0]", "Batches[epoch, index]", "batches[0, 2]"),
    First(
        lambda: fit(early_stop=ft.EarlyStop("loss")),
        "nothing is evaluated",
        "early_stop",
        "eval_data=",
    ),
    First(
        lambda: fit(eval_data=batches(), early_stop=ft.EarlyStop("val_loss")),
        "depends on 'val_loss'",
        "early_stop",
        "did you mean 'eval/loss'",
    ),
    First(
        lambda: fit(listeners=ft.listeners.Console()),
        "got a Console",
        "listeners",
        "listeners=[...]",
    ),
    First(lambda: fit(listeners=[ft.listeners.Console]), "is a class", "Console", "Console(...)"),
    First(lambda: fit(directory=3), "got a int", "directory", "a path or functrain.Checkpoints"),
    First(
        lambda: _fit(Net(), batches(), until="1 step"),
        "got a Net",
        "expected a Program",
        "functrain.program(model, loss, optimizer)",
    ),
    First(
        lambda: _fit(batches(), program(), until="1 step"),
        "got a Batches",
        "expected a Program",
        "the program comes first",
    ),
    First(
        lambda: _compiled(Net()),
        "got a Net",
        "expected a Program",
        "functrain.program(model, loss, optimizer)",
    ),
    First(
        lambda: _batches(DataLoader([0, 1]), 2),
        "a DataLoader gives batches",
        "Batches needs samples",
        "Batches(loader.dataset, batch_size)",
    ),
    First(lambda: fit(save_every="epoch"), "lacks its number", "'epoch'", '"1 epoch"'),
    First(
        lambda: fit(listeners=[lambda event: None]),
        "has none of the methods",
        "<lambda>",
        'functrain.listeners.Every("100 steps", f)',
    ),
    First(lambda: fit().model, "no attribute 'model'", "Run", "program.evaluating(run.state)"),
    First(lambda: fit().history.loss, "no attribute 'loss'", "History", "history['loss']"),
    First(lambda: fit().state.counters.steps, "no attribute 'steps'", "Counters", "'step'"),
]
