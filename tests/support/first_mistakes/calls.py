"""Arguments under the names that other libraries have for them."""

from __future__ import annotations

import functrain as ft
from first_mistakes.parts import Net, X, Y, batches, cross_entropy, fit, program

FIRST = [
    (
        lambda: ft.fit(program(), batches(), epochs=10),
        "fit() … takes no argument 'epochs' … until=\"10 epochs\"",
    ),
    (
        lambda: ft.fit(program(), batches(), max_steps=500),
        "fit() … takes no argument 'max_steps' … until=\"500 steps\"",
    ),
    (
        lambda: ft.fit(program(), batches(), num_train_epochs=3),
        "fit() … takes no argument 'num_train_epochs' … until=\"3 epochs\"",
    ),
    (lambda: ft.fit(program(), batches()), "fit() … needs the argument 'until' … \"10 epochs\""),
    (lambda: ft.fit(program(), batches(), 10), "fit() … got 10 as one more … until"),
    (lambda: fit(callbacks=[]), "fit() … takes no argument 'callbacks' … listeners=[...]"),
    (
        lambda: fit(validation_data=batches()),
        "fit() … takes no argument 'validation_data' … eval_data=",
    ),
    (
        lambda: fit(output_dir="runs/a"),
        "fit() … takes no argument 'output_dir' … directory='runs/a'",
    ),
    (
        lambda: fit(monitor="valid/loss"),
        "fit() … takes no argument 'monitor' … functrain.Checkpoints(path, monitor='valid/loss') "
        "or early_stop=functrain.EarlyStop(",
    ),
    (
        lambda: fit(save_top_k=2),
        "fit() … takes no argument 'save_top_k' … functrain.Checkpoints(path, keep_best=1)",
    ),
    (
        lambda: fit(patience=3),
        "fit() … takes no argument 'patience' … early_stop=functrain.EarlyStop(patience=3)",
    ),
    (lambda: fit(verbose=1), "fit() … takes no argument 'verbose' … progress=False"),
    (
        lambda: fit(metrics=["accuracy"]),
        "fit() … takes no argument 'metrics' … functrain.Loss(value, metrics={...})",
    ),
    (
        lambda: fit(accelerator="gpu"),
        "fit() … takes no argument 'accelerator' … program.init(device=...)",
    ),
    (
        lambda: program(gradient_accumulation_steps=4),
        "program() … takes no argument 'gradient_accumulation_steps' … accumulate=4",
    ),
    (
        lambda: program(mixed_precision="bf16"),
        "program() … takes no argument 'mixed_precision' … precision=\"bf16\"",
    ),
    (lambda: program(lr=0.1), "program() … takes no argument 'lr' … functrain.optim.AdamW(lr=0.1)"),
    (
        lambda: ft.program(Net(), cross_entropy),
        "program() … needs the argument 'optimizer' … one of functrain.optim",
    ),
    (
        lambda: ft.optim.AdamW(learning_rate=0.1),
        "AdamW() … takes no argument 'learning_rate' … lr=0.1",
    ),
    (lambda: ft.optim.AdamW(beta1=0.5), "AdamW() … takes no argument 'beta1' … betas=(0.9, 0.999)"),
    (
        lambda: ft.optim.SGD(Net().parameters(), lr=0.1),
        "SGD() … got it by position (a generator) … the program gives them to its optimizer",
    ),
    (
        lambda: ft.schedules.Cosine(1e-3, T_max=100),
        "Cosine() … takes no argument 'T_max' … steps=100",
    ),
    (lambda: batches(shufle=True), "Batches() … takes no argument 'shufle' … 'shuffle'"),
    (lambda: batches(num_workers=2), "Batches() … no argument 'num_workers' … workers=2"),
    (
        lambda: ft.data.Batches(X, Y, batch_size=8),
        "Batches() … takes 'batch_size' once, and got it by position (a Tensor … "
        "are one argument, (x, y)",
    ),
    (
        lambda: ft.EarlyStop(metric="loss"),
        "EarlyStop() … takes no argument 'metric' … monitor='loss'",
    ),
]
