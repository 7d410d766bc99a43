"""functrain's `fit`: the same call begins and resumes a run."""

from __future__ import annotations

from pathlib import Path

import torch

import functrain as ft
from benchmarks.proof.tasks import BATCH_SIZE, EPOCHS, RATE, Net, Points, Task, held_out, loss, rate


def train(task: Task, directory: Path) -> dict[str, torch.Tensor]:
    schedule = ft.schedules.Lambda(lambda update: RATE * rate(task, update))
    program = ft.program(
        lambda: Net(task), loss, ft.optim.AdamW(lr=schedule), accumulate=task.accumulate
    )
    if task.parts > 1:
        program = ft.sharded(program, parts=task.parts)
    run = ft.fit(
        program,
        ft.data.Batches(Points(task), BATCH_SIZE, seed=0, workers=task.workers),
        until=ft.Epochs(EPOCHS),
        directory=directory,
        save_every=ft.Steps(task.save_every_updates),
        **evaluations(task),
    )
    return {**run.state.params, **run.state.buffers}


def evaluations(task: Task) -> dict[str, object]:
    if not task.evaluate_every:
        return {}
    data = ft.data.Batches(held_out(task), BATCH_SIZE)
    return {"eval_data": data, "eval_every": ft.Steps(task.evaluate_every // task.accumulate)}
