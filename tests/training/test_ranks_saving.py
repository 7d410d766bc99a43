"""Checkpoints of ``fit`` on several real processes, which write and read them together."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import rank_runs
import ranks
import torch
from crashes import kill
from crashes.faults import failing_always
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import functrain as ft
from functrain import tree
from functrain.checkpoint.remote import RemoteCheckpoints
from functrain.checkpoint.together import saving as saving_together
from functrain.listeners import Mirror
from functrain.training.resume import TYPES, expected
from functrain.training.session import Session

# ``make properties`` asks for the long form, of another seed each time.
LONG = os.environ.get("FUNCTRAIN_EXAMPLES") == "long"
SHARDS = ["none", "optimizer", "all"]


class Noting:
    """Notes the checkpoints that it hears of, and keeps the parameters of the last one."""

    def __init__(self, every_rank: bool) -> None:
        self.every_rank, self.name = every_rank, f"noting-{every_rank}"
        self.paths: list[Path] = []
        self.params: Any = None

    def on_checkpoint_saved(self, event: ft.events.CheckpointSaved) -> None:
        self.paths.append(event.path)
        self.params = event.state.params if self.every_rank else None

    def state_dict(self) -> dict[str, Any]:
        return {"params": self.params, "bytes": torch.arange(len(self.paths))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def best(directory: Path, shard: Any, background: bool) -> dict[str, Any]:
    """Keep the best checkpoint besides the last one, and return the best state."""
    store = ft.Checkpoints(
        directory, keep_last=1, keep_best=1, monitor="loss", background=background
    )
    everywhere, first = Noting(True), Noting(False)
    options = {"listeners": [everywhere, first], "restore_best": True}
    found = rank_runs.fitted(store, shard, **options)
    names = [path.name for path in everywhere.paths]
    return {**found, "names": names, "first": [path.name for path in first.paths]}


def both(directory: Path, shard: Any) -> list[dict[str, Any]]:
    return [best(directory / str(flag), shard, flag) for flag in (False, True)]


@pytest.mark.row(57)
@pytest.mark.sweep
@pytest.mark.parametrize(("n", "shard"), [(2, "all"), (3, "optimizer"), (2, "none")])
def test_best_checkpoints_and_those_written_in_the_background(
    tmp_path: Path, n: int, shard: str
) -> None:
    alone = both(tmp_path / "alone", "none")
    expected = rank_runs.files(tmp_path / "alone" / "False")
    assert rank_runs.files(tmp_path / "alone" / "True") == expected
    steps = ft.Checkpoints(tmp_path / "alone" / "False").steps()
    assert alone[0]["best"]["step"] == steps[0] < steps[-1] == 9
    assert alone[0]["names"] == alone[0]["first"] == [f"step-{n:08d}" for n in (3, 4, 6, 9)]
    found = ranks.run(both, n, tmp_path / "ranks", shard)
    assert found[0] == alone
    assert found[1:] == [[{**each, "first": []} for each in alone]] * (n - 1)
    for flag in ("False", "True"):
        assert rank_runs.files(tmp_path / "ranks" / flag) == expected


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest plain tensor that is made."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        plain = [leaf for leaf in tree_leaves(found) if type(leaf) is Tensor]
        made = [leaf.nbytes for leaf in plain if not leaf.is_meta]
        self.nbytes = max([self.nbytes, *made])
        return found


def wide(directory: Path | ft.Checkpoints, until: str, listeners: Any = ()) -> None:
    """Train leaves of 4 MiB, of which each rank holds a part."""
    torch.manual_seed(0)
    loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(3)))
    plain = ft.program(model, loss, ft.optim.SGD(lr=0.1), ema=0.9)
    program = ft.sharded(plain, ft.Placement(shard="all"), parts=4)
    options: dict[str, Any] = {"directory": directory, "listeners": listeners}
    ft.fit(program, [torch.ones(4, 1024)] * 9, until=until, save_every="2 steps", **options)


def measured(directory: Path, until: str) -> tuple[int, int]:
    """Return the bytes of the largest tensors that are made to load and to save."""
    loading, saving = Largest(), Largest()
    restore, save = ft.Checkpoints.restore, Session.save

    def saved(*args: Any) -> None:
        with saving:
            save(*args)

    def restored(*args: Any, **options: Any) -> Any:
        with loading:
            return restore(*args, **options)

    with (
        mock.patch.object(Session, "save", saved),
        mock.patch.object(ft.Checkpoints, "restore", restored),
        mock.patch.object(saving_together, "_WINDOW", 1 << 20),
    ):
        wide(directory, until)
    return loading.nbytes, saving.nbytes


def test_no_rank_holds_a_whole_leaf_to_save_or_load(tmp_path: Path) -> None:
    weight = 4 * 1024 * 1024
    assert ranks.run(measured, 2, tmp_path, "2 steps")[0][0] == 0
    for loading, saving in ranks.run(measured, 2, tmp_path, "4 steps"):
        assert 0 < loading <= weight // 2
        assert 0 < saving <= weight // 2


class Dying:
    """Kills its own process on one rank: in a system call, or a moment after a step."""

    every_rank = True

    def __init__(self, rank: int, step: int, call: int | None, seconds: float) -> None:
        self.rank, self.left, self.call, self.seconds = rank, step, call, seconds

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        self.left -= 1
        if self.left or rank_runs.rank() != self.rank:
            return
        if self.call is None:
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        else:
            kill._arm(self.call, torn=self.call % 2 == 0)


def dying(directory: Path, shard: Any, background: bool, until: str, victim: Any) -> None:
    store = ft.Checkpoints(directory, keep_last=3, background=background)
    rank_runs.fitted(store, shard, until, listeners=[] if victim is None else [Dying(*victim)])


@pytest.mark.row(59)
def test_killed_ranks_and_other_numbers_of_ranks_end_in_the_same_bytes(tmp_path: Path) -> None:
    starts, seed = ((2, 3, 2, 4, 2, 3) * 7, random.randrange(2**32)) if LONG else ((2, 3, 4), 1)
    steps, run, generator = 8 * len(starts), tmp_path / "run", random.Random(seed)
    until = f"{steps} steps"
    rank_runs.fitted(ft.Checkpoints(tmp_path / "straight", keep_last=999), until=until)
    straight = rank_runs.files(tmp_path / "straight")
    for number, n in enumerate(starts):
        rank = generator.choice([0, n - 1])
        call = None if rank or number % 6 == 2 else generator.randint(1, 60)  # rank 0 writes
        victim = (rank, generator.randint(1, 6), call, generator.uniform(0, 0.03))
        print(f"seed {seed}, kill {number}: {victim} of {n}")
        options = (generator.choice(SHARDS), bool(number % 2), until, victim)
        found = ranks.outcomes(dying, n, run, *options)
        assert isinstance(found.pop(rank), ranks.DiedError), victim
        for error in found:
            assert isinstance(error, ft.errors.RankFailedError), error
            assert f"rank {rank} " in str(error)
        complete = rank_runs.checkpoints(run)
        assert complete == {name: straight[name] for name in complete}
    ranks.run(dying, 3, run, "all", True, until, None)
    complete = rank_runs.checkpoints(run)
    assert complete == {name: straight[name] for name in complete}
    assert ft.Checkpoints(run).steps()[-1] == steps
    assert (run / "metrics.jsonl").read_bytes() == straight["metrics.jsonl"]


class Filling:
    """Lets every write to a checkpoint fail, once the first checkpoint is there."""

    every_rank = True

    def __init__(self, store: ft.Checkpoints) -> None:
        self.store = store

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        if event.state.counters.step == 3 and rank_runs.rank() == 0:
            while not self.store.steps():
                time.sleep(0.01)
            failing_always(pytest.MonkeyPatch(), os, "pwrite", errno.ENOSPC)


def filling(directory: Path, background: bool) -> tuple[int | None, str]:
    store = ft.Checkpoints(directory, background=background)
    with pytest.raises(ft.errors.CheckpointWriteError) as caught:
        wide(store, "9 steps", [Filling(store)])
    return caught.value.errno, str(caught.value)


def test_a_full_disk(tmp_path: Path) -> None:
    texts = []
    for code, text in ranks.run(filling, 3, tmp_path / "run", True):
        assert code == errno.ENOSPC
        texts.append(text)
    assert all("rank 0" in text for text in texts[1:])
    store = ft.Checkpoints(tmp_path / "run")
    assert store.steps() == [2]
    store.verify(2)
    assert not [name for name in os.listdir(tmp_path / "run") if name.startswith(".step")]


class Changing:
    """Has a state that no checkpoint can hold, after a few steps, on rank 0."""

    step = 0

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        self.step = event.state.counters.step

    def state_dict(self) -> dict[str, Any]:
        return {"limit": ft.Steps(1) if self.step > 4 else None}


def changing(directory: Path, background: bool) -> None:
    store = ft.Checkpoints(directory, background=background)
    rank_runs.fitted(store, "all", listeners=[Changing()])


def test_an_error_of_rank_0_before_a_save(tmp_path: Path) -> None:
    first, *others = ranks.outcomes(changing, 3, tmp_path / "run", True)
    assert isinstance(first, ft.errors.UnsupportedError)
    for error in others:
        assert isinstance(error, ft.errors.RankFailedError)
        assert "rank 0 raised functrain.errors" in str(error)
        assert "UnsupportedError" in str(error)
    assert ft.Checkpoints(tmp_path / "run").steps()[-1] == 4


def mirrored(directory: Path, url: str) -> tuple[str, str]:
    """Copy checkpoints to a remote store; return the last state, and what is read from there."""
    program = rank_runs.program("all")
    found = rank_runs.fitted(directory, made_by=program, listeners=[Mirror(url)])
    like = expected(program, seed=1)
    saved, _ = RemoteCheckpoints(url).restore(like=like, types=TYPES)
    return found["state"], tree.digest(program.gathered(saved.train))


def test_checkpoints_of_ranks_in_a_remote_store(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    for state, remote in ranks.run(mirrored, 2, tmp_path / "run", url):
        assert state == remote
    assert RemoteCheckpoints(url).steps() == [3, 4, 6, 9]


def test_a_remote_store_is_no_run_directory() -> None:
    store: Any = RemoteCheckpoints("memory://remote/fit")
    with pytest.raises(ft.errors.ConfigurationError, match=r"got a RemoteCheckpoints.*Mirror"):
        rank_runs.fitted(store)
