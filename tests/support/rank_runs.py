"""Runs of ``fit`` for tests of several processes. A rank imports them by name."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from sharded_runs import batches, made

import functrain as ft
from functrain import tree
from functrain.distributed import current


def data(size: int = 12) -> ft.data.Batches:
    """Five batches in an epoch, the last of four samples."""
    x, y = batches("Tiny", [52])[0]
    return ft.data.Batches((x, y), size, seed=5)


def held_out() -> list[Any]:
    return batches("Tiny", [7, 7])


def program(shard: Any = "none", parts: int = 4, model: str = "Tiny") -> ft.Program:
    return ft.sharded(made(model), ft.Placement(shard=shard), parts=parts)


def files(directory: Path) -> dict[str, bytes]:
    """Return what a run has written, without the times in manifests."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in found
        if path.suffix in (".safetensors", ".jsonl")
    }


def facts(run: ft.Run, made_by: ft.Program) -> dict[str, Any]:
    """Return what must be equal on every rank, and for every number of ranks."""
    return {
        "state": tree.digest(made_by.gathered(run.state)),
        "rows": [dict(row) for row in run.history.rows],
        "best": run.best,
        "reason": (run.reason, run.detail, run.new_steps),
    }


def fitted(
    directory: Path | None,
    shard: Any = "none",
    until: str = "9 steps",
    listeners: Any = (),
    made_by: ft.Program | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train on the ranks that there are, and evaluate and save within epochs and after them."""
    made_by = made_by or program(shard)
    options = {"eval_data": held_out(), "eval_every": "4 steps", "save_every": "3 steps", **options}
    run = ft.fit(
        made_by, data(), until=until, directory=directory, listeners=list(listeners), **options
    )
    return facts(run, made_by)


def signalled(directory: Path, ranks: list[int], number: int = signal.SIGTERM) -> dict[str, Any]:
    """Send a signal to some ranks after their fourth step."""
    return fitted(directory, listeners=[Signalling(ranks, number)])


class Signalling:
    """Sends a signal to its own process."""

    every_rank = True

    def __init__(self, ranks: list[int], number: int) -> None:
        self.ranks, self.number, self.rank = ranks, number, 0

    def on_train_begin(self, event: ft.events.TrainBegin) -> None:
        self.rank = event.rank

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        if event.state.counters.step == 4 and self.rank in self.ranks:
            os.kill(os.getpid(), self.number)


def resumed_often(directory: Path, shards: list[Any], until: str) -> list[dict[str, Any]]:
    """Train to the same end again with each placement, in directories of their own."""
    return [fitted(directory / str(shard), shard, until) for shard in shards]


def rank() -> int:
    return current().rank


def newest(directory: Path) -> dict[str, bytes]:
    """Return the bytes of the newest checkpoint, and the log."""
    last = f"step-{ft.Checkpoints(directory).steps()[-1]:08d}"
    found = files(directory)
    return {name: data for name, data in found.items() if name.startswith((last, "metrics"))}


def poisoned() -> list[Any]:
    """Return batches of which the third has a number that is not finite."""
    found = batches("MLP", [16] * 4)
    found[2][0][3, 0] = float("nan")
    return found


def drawn(seed: int) -> ft.Program:
    """Return a program whose weights every rank draws for itself."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(16, 3)
    loss = lambda model, batch: model(batch[0]).square().mean()  # noqa: E731
    return ft.sharded(ft.program(model, loss, ft.optim.SGD(lr=0.1)), parts=4)


class Killing:
    """Kills its own process a moment after some steps of this call, on one rank."""

    every_rank = True

    def __init__(self, rank: int, steps: int, seconds: float) -> None:
        self.rank, self.left, self.seconds = rank, steps, seconds

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        self.left -= 1
        if self.left == 0 and rank() == self.rank:
            arguments = (os.getpid(), signal.SIGKILL)
            threading.Timer(self.seconds, os.kill, arguments).start()


def killed(directory: Path, shard: Any, until: str, victim: tuple[int, int, float]) -> None:
    fitted(directory, shard, until, listeners=[Killing(*victim)])
