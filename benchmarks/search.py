"""Trials of a search in a minute of CPU time: one by one, and as populations.

    python -m benchmarks.search [TRIALS]

The trials are of the network of ``benchmarks/populations.py`` with learning rates and weight decays
of their own, on one thread. Each contender searches in a directory of its own, compiling included.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

import torch

import functrain as ft
from benchmarks.populations import loss
from benchmarks.steps.models import mlp
from functrain.errors.optional import require
from functrain.search import ProgramObjective, search

_POPULATION = 16
_SPACE = {
    "lr": {"type": "float", "min": 1e-4, "max": 1e-2, "log": True},
    "decay": {"type": "float", "min": 0.0, "max": 0.1},
}


def objective(transform: Any) -> ProgramObjective:
    """Return the objective: ten epochs of 64 steps, each evaluated."""
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    y = (x[:, :10] + x[:, 10:20]).argmax(1)
    data = ft.data.Batches((x, y), batch_size=64)
    held_out = ft.data.Batches((x[:512], y[:512]), batch_size=512)

    def make(params: dict[str, Any]) -> ft.Program:
        return ft.program(mlp, loss, ft.optim.AdamW(params["lr"], weight_decay=params["decay"]))

    options = {"data": data, "until": "10 epochs", "eval_data": held_out}
    return ProgramObjective(make, ["lr", "decay"], fit=options, transform=transform)


def per_minute(trials: int, population: int, transform: Any) -> float:
    """Return the trials in a minute."""
    with tempfile.TemporaryDirectory() as directory:
        begin = time.process_time()
        search(
            objective(transform),
            _SPACE,
            metric="eval/loss",
            directory=directory,
            trials=trials,
            population=population,
            sampler={"name": "RandomSampler"},
            say=lambda line: None,
        )
        return 60 * trials / (time.process_time() - begin)


def main(trials: int) -> None:
    """Measure, and print one row a contender."""
    torch.set_num_threads(1)
    require("optuna.logging", "search").set_verbosity(30)
    contenders = {
        "one by one, eager": (1, lambda program: program),
        f"population={_POPULATION}, eager": (_POPULATION, lambda program: program),
        f"population={_POPULATION}, compiled": (_POPULATION, ft.compiled),
        "one by one, compiled": (1, ft.compiled),
    }
    first = None
    for name, (population, transform) in contenders.items():
        found = per_minute(trials, population, transform)
        first = first or found
        print(
            f"{name:28} {found:7.1f} trials a minute, {found / first:5.2f} of the first", flush=True
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 32)
