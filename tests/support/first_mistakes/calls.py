"""Arguments under the names that other libraries have for them."""

from __future__ import annotations

from typing import Any

import functrain as ft
from first_mistakes.parts import First, Net, X, Y, adamw, batches, cross_entropy, fit, program

_fit: Any = ft.fit
_batches: Any = ft.data.Batches
_schedules: Any = ft.schedules
_early_stop: Any = ft.EarlyStop
_sgd: Any = ft.optim.SGD

FIRST = [
    First(
        lambda: _fit(program(), batches(), epochs=10),
        "takes no argument 'epochs'",
        "fit()",
        'until="10 epochs"',
    ),
    First(
        lambda: _fit(program(), batches(), max_steps=500),
        "takes no argument 'max_steps'",
        "fit()",
        'until="500 steps"',
    ),
    First(
        lambda: _fit(program(), batches(), num_train_epochs=3),
        "takes no argument 'num_train_epochs'",
        "fit()",
        'until="3 epochs"',
    ),
    First(lambda: _fit(program(), batches()), "needs the argument 'until'", "fit()", '"10 epochs"'),
    First(lambda: _fit(program(), batches(), 10), "got 10 as one more", "fit()", "until"),
    First(lambda: fit(callbacks=[]), "takes no argument 'callbacks'", "fit()", "listeners=[...]"),
    First(
        lambda: fit(validation_data=batches()),
        "takes no argument 'validation_data'",
        "fit()",
        "eval_data=",
    ),
    First(
        lambda: fit(output_dir="runs/a"),
        "takes no argument 'output_dir'",
        "fit()",
        "directory='runs/a'",
    ),
    First(lambda: fit(verbose=1), "takes no argument 'verbose'", "fit()", "progress=False"),
    First(
        lambda: fit(metrics=["accuracy"]),
        "takes no argument 'metrics'",
        "fit()",
        "functrain.Loss(value, metrics={...})",
    ),
    First(
        lambda: fit(accelerator="gpu"),
        "takes no argument 'accelerator'",
        "fit()",
        "program.init(device=...)",
    ),
    First(
        lambda: program(clipnorm=1.0),
        "takes no argument 'clipnorm'",
        "program()",
        "clip_norm=1.0",
    ),
    First(
        lambda: program(gradient_accumulation_steps=4),
        "takes no argument 'gradient_accumulation_steps'",
        "program()",
        "accumulate=4",
    ),
    First(
        lambda: program(mixed_precision="bf16"),
        "takes no argument 'mixed_precision'",
        "program()",
        'precision="bf16"',
    ),
    First(
        lambda: program(lr=0.1),
        "takes no argument 'lr'",
        "program()",
        "functrain.optim.AdamW(lr=0.1)",
    ),
    First(
        lambda: ft.program(Net(), cross_entropy),  # type: ignore[call-arg]
        "needs the argument 'optimizer'",
        "program()",
        "one of functrain.optim",
    ),
    First(
        lambda: adamw(learning_rate=0.1), "takes no argument 'learning_rate'", "AdamW()", "lr=0.1"
    ),
    First(lambda: adamw(beta1=0.5), "takes no argument 'beta1'", "AdamW()", "betas=(0.9, 0.999)"),
    First(
        lambda: _sgd(Net().parameters(), lr=0.1),
        "got it by position (a generator)",
        "SGD()",
        "the program gives them to its optimizer",
    ),
    First(
        lambda: _schedules.Cosine(1e-3, T_max=100),
        "takes no argument 'T_max'",
        "Cosine()",
        "steps=100",
    ),
    First(lambda: batches(shufle=True), "takes no argument 'shufle'", "Batches()", "'shuffle'"),
    First(lambda: batches(num_workers=2), "no argument 'num_workers'", "Batches()", "workers=2"),
    First(
        lambda: _batches(X, Y, batch_size=8),
        "takes 'batch_size' once, and got it by position (a Tensor",
        "Batches()",
        "are one argument, (x, y)",
    ),
    First(
        lambda: _early_stop(metric="loss"),
        "takes no argument 'metric'",
        "EarlyStop()",
        "monitor='loss'",
    ),
]
