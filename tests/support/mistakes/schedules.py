"""Mistakes with schedules, durations and positions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

import functrain as ft
from functrain import errors
from functrain.schedules import Cosine, Plateau, Sequential, WarmupCosine
from functrain.training.limits import Position
from mistakes.mistake import X, batches, fit, program


class Unknown:
    """Batches of unknown number."""

    def __iter__(self) -> Iterator[Tensor]:
        yield from (X, X, X)


def rated(rate: object) -> ft.Program:
    return program(optimizer=ft.optim.SGD(lr=rate))  # type: ignore[arg-type]


def another_schedule(path: Path) -> None:
    fit("2 steps", program=rated(Cosine(lr=0.1)), directory=path)
    fit("4 steps", program=rated(Plateau(lr=0.1, observes="step")), directory=path)


def longer(path: Path, end: float) -> None:
    fit("2 steps", program=rated(Cosine(lr=0.1, end=end)), directory=path)
    fit("4 steps", program=rated(Cosine(lr=0.1, end=end)), directory=path)


def by_hand(steps: int, batch: Tensor) -> ft.TrainState:
    state = program().init()
    for _ in range(steps):
        state, _ = program().train_step(state, batch)
    return state


MISTAKES = {
    errors.ConfigurationError: [
        (
            lambda: WarmupCosine(lr=0.1, warmup_steps=5, warmup_proportion=0.1),
            "WarmupCosine … exactly one of warmup_steps and warmup_proportion",
        ),
        (lambda: Cosine(lr=-0.1), "Cosine: lr … >= 0 … -0.1"),
        (
            lambda: fit(program=rated(WarmupCosine(lr=0.1, warmup_steps=10))),
            "warmup_steps=10 … horizon of 4 steps … lengthen the run … shorten the warmup",
        ),
        (lambda: fit("10 epcohs"), "unknown unit 'epcohs' … epochs"),
        (lambda: ft.Steps(0), "above 0 … got 0"),
    ],
    errors.UnknownLengthError: [
        (
            lambda: Cosine(lr=0.1)(3),
            "Cosine has no steps of its own … give Cosine(..., steps=N) … ft.fit(until=...)",
        ),
        (lambda: fit("0.5 epochs", Unknown()), '"0.5 epochs" … use whole epochs, steps or samples'),
    ],
    errors.ScheduleStateError: [
        (
            lambda: Plateau(lr=0.1)(0),
            "Plateau's lr depends on the metrics … schedule.lr(state, step)",
        ),
        (
            another_schedule,
            "made with another learning rate schedule … Continue with the schedule of the run … "
            "program.init(params=state.params)",
        ),
    ],
    errors.UnsupportedError: [
        (
            lambda: Sequential(["0.1"], []),
            "expected a number, a function step -> lr, or a schedule … got str: '0.1'",
        ),
        (lambda: Sequential([Cosine], []), "Cosine is a class … call it, as in Cosine(...)"),
    ],
    errors.ScheduleEndedError: [
        (
            lambda path: longer(path, 0.0),
            "Cosine ends at update 2 … exactly 0 … continues to update 4 … "
            'schedule_end="stretch" … schedule_end="restart" … fit.schedule_end=keep',
        ),
    ],
    errors.ScheduleEndedWarning: [
        (
            lambda path: longer(path, 0.01),
            'ends at update 2 … continues to 4 … schedule_end="stretch" … fit.schedule_end=restart',
        ),
    ],
    errors.InvalidPositionError: [
        (
            lambda: Position(step=-1, epoch=0, batch=0, samples=0, batches=4, minutes=0.0),
            "at least 0 … step=-1",
        ),
        (
            lambda: fit(state=by_hand(11, X[:1])),
            "batch 11 of epoch 0 … 4 batches … 22 samples … has seen 11 … "
            "attrs.evolve(state, counters=state.counters.next_epoch())",
        ),
    ],
    errors.MissingMetricError: [
        (
            lambda: fit(eval_data=batches(), early_stop=ft.EarlyStop("valid/loss", patience=1)),
            "'valid/loss' … eval/loss",
        ),
    ],
}
