"""Runs of ``fit`` for tests of several processes. A rank imports them by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import orjson
import torch
from sharded_runs import batches, made

import functrain as ft
from functrain import tree
from functrain.distributed import current


def data(size: int = 12) -> ft.data.Batches:
    """Five batches in an epoch, the last of nine samples."""
    x, y = batches("MLP", [57])[0]
    return ft.data.Batches((x, y), size, seed=5)


def held_out() -> list[Any]:
    return batches("MLP", [7, 7])


def program(shard: Any = "none", parts: int = 4, model: str = "MLP") -> ft.Program:
    return ft.sharded(made(model), ft.Placement(shard=shard), parts=parts)


def files(directory: Path) -> dict[str, Any]:
    """Return all that a run has written, without its arguments and the times in manifests."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    found = [path for path in found if path.suffix != ".yaml"]
    return {str(path.relative_to(directory)): _content(path) for path in found}


def checkpoints(directory: Path) -> dict[str, Any]:
    """Return the files of all complete checkpoints of a run."""
    return {name: data for name, data in files(directory).items() if name.startswith("step-")}


def _content(path: Path) -> Any:
    if path.suffix != ".json":
        return path.read_bytes()
    manifest = orjson.loads(path.read_bytes())
    del manifest["saved_at"], manifest["digest"], manifest["info"]["seconds"]
    manifest["info"].get("before_last_step", {}).pop("minutes", None)
    return manifest


def facts(run: ft.Run, made_by: ft.Program) -> dict[str, Any]:
    """Return what must be equal on every rank, and for every number of ranks."""
    return {
        "state": tree.digest(made_by.gathered(run.state)),
        "rows": [dict(row) for row in run.history.rows],
        "best": run.best,
        "reason": (run.reason, run.detail, run.new_steps),
    }


def fitted(
    directory: Path | ft.Checkpoints | None,
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


def signalled(
    directory: Path, ranks: list[int], number: int = signal.SIGTERM, times: int = 1
) -> dict[str, Any]:
    """Send a signal to some ranks after their fourth step."""
    return fitted(directory, listeners=[Signalling(ranks, number, times)])


class Signalling:
    """Sends a signal to its own process, once or several times in a row."""

    every_rank = True

    def __init__(self, ranks: list[int], number: int, times: int) -> None:
        self.ranks, self.number, self.times, self.rank = ranks, number, times, 0

    def on_train_begin(self, event: ft.events.TrainBegin) -> None:
        self.rank = event.rank

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        if event.state.counters.step == 4 and self.rank in self.ranks:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def resumed_often(directory: Path, shards: list[Any], until: str) -> list[dict[str, Any]]:
    """Train to the same end again with each placement, in directories of their own."""
    return [fitted(directory / str(shard), shard, until) for shard in shards]


def rank() -> int:
    return current().rank


def newest(directory: Path) -> dict[str, Any]:
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
