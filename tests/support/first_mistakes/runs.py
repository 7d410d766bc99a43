"""Data and runs that cannot work."""

from __future__ import annotations

from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from first_mistakes.parts import Net, X, Y, batches, fit, program

FIRST = [
    (lambda: fit(until=10), 'a duration needs its unit … got 10 … "10 steps"'),
    (lambda: fit(until="ten epochs"), "'ten epochs' … not a number and a unit … \"0.5 epochs\""),
    (
        lambda: fit(TensorDataset(X, Y)),
        "TensorDataset … holds samples, not batches … functrain.data.Batches(dataset, batch_size)",
    ),
    (
        lambda: fit((X, Y)),
        "a tuple of tensors … columns … functrain.data.Batches((x, y), batch_size)",
    ),
    (
        lambda: ft.data.Batches((X, Y[:3]), 4),
        "must be equally long … column 0 has 16 … column 1 has 3",
    ),
    (lambda: ft.data.Batches((X, Y), 0), "batch_size … an integer >= 1 … got 0"),
    (lambda: ft.data.Batches(X, Y), "batch_size … an integer >= 1 … a tensor of shape (16,)"),
    (lambda: batches()[0], "Batches[epoch, index] … got [0] … batches[0, 2]"),
    (
        lambda: fit(early_stop=ft.EarlyStop("loss")),
        "nothing is evaluated … early_stop … eval_data=",
    ),
    (
        lambda: fit(eval_data=batches(), early_stop=ft.EarlyStop("val_loss")),
        "early_stop … depends on 'val_loss' … did you mean 'eval/loss'",
    ),
    (lambda: fit(listeners=ft.listeners.Console()), "listeners … got a Console … listeners=[...]"),
    (lambda: fit(listeners=[ft.listeners.Console]), "Console … is a class … Console(...)"),
    (lambda: fit(directory=3), "directory … a path or functrain.Checkpoints … got a int"),
    (
        lambda: ft.fit(Net(), batches(), until="1 step"),
        "expected a Program … got a Net … functrain.program(model, loss, optimizer)",
    ),
    (
        lambda: ft.fit(batches(), program(), until="1 step"),
        "expected a Program … got a Batches … the program comes first",
    ),
    (
        lambda: ft.compiled(Net()),
        "expected a Program … got a Net … functrain.program(model, loss, optimizer)",
    ),
    (
        lambda: ft.data.Batches(DataLoader([0, 1]), 2),
        "Batches needs samples … a DataLoader gives batches … Batches(loader.dataset, batch_size)",
    ),
    (lambda: fit(save_every="epoch"), "'epoch' … lacks its number … \"1 epoch\""),
    (
        lambda: fit(listeners=[lambda event: None]),
        "<lambda> … has none of the methods of a listener: on_train_begin … "
        'functrain.listeners.Every("100 steps", f)',
    ),
    (lambda: fit().model, "Run … no attribute 'model' … program.evaluating(run.state)"),
    (lambda: fit().history.loss, "History … no attribute 'loss' … history['loss']"),
    (lambda: fit().state.counters.steps, "Counters … no attribute 'steps' … 'step'"),
]
