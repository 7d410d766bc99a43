"""Mistakes with schedules, durations and positions."""

from __future__ import annotations

from pathlib import Path

import functrain as ft
from functrain import errors
from functrain.schedules import Cosine, Plateau
from functrain.training.limits import Position
from mistakes.parts import batches, fit, program


def rated(rate: object) -> ft.Program:
    return program(optimizer=ft.optim.SGD(lr=rate))  # type: ignore[arg-type]


def longer(path: Path, end: float) -> None:
    fit("2 steps", program=rated(Cosine(lr=0.1, end=end)), directory=path)
    fit("4 steps", program=rated(Cosine(lr=0.1, end=end)), directory=path)


MISTAKES = [
    (errors.UnknownLengthError, lambda: Cosine(lr=0.1)(3), "Cosine has no steps of its own"),
    (errors.ScheduleStateError, lambda: Plateau(lr=0.1)(0), "Plateau's lr depends on the metrics"),
    (errors.ScheduleEndedError, lambda path: longer(path, 0.0), "Cosine ends at update 2"),
    (errors.ScheduleEndedWarning, lambda path: longer(path, 0.01), "fit.schedule_end=restart"),
    (
        errors.ConfigurationError,
        lambda: Position(step=-1, epoch=0, batch=0, samples=0, batches=4, minutes=0.0),
        "at least 0",
    ),
    (
        errors.MissingMetricError,
        lambda: fit(eval_data=batches(), early_stop=ft.EarlyStop("valid/loss", patience=1)),
        "'valid/loss'",
    ),
]
