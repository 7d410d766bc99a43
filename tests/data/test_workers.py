"""Worker processes change nothing but the time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

import functrain as ft
from functrain import tree
from functrain.data import Batches
from functrain.errors import ConfigurationError, WorkerDiedError, WorkerTimeoutError


class Noisy(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randn(3) + random.random() + np.random.randn() + index, index


class WhoReads(Noisy):
    """A dataset of the process id and torch threads of the reading process."""

    def __getitem__(self, index: int) -> tuple[int, int]:  # type: ignore[override]
        return os.getpid(), torch.get_num_threads()


class Broken(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 13:
            raise ValueError("a bad sample")
        return super().__getitem__(index)


class Killed(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def shaken(samples: list[Any]) -> Tensor:
    return torch.stack([sample[0] for sample in samples]) + torch.rand(()) + random.random()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def global_state() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]


@pytest.mark.row(33)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("start", [(0, 0), (1, 4)])
@pytest.mark.parametrize("options", [{}, {"collate": shaken}, {"shuffle": False}])
def test_any_number_of_workers_gives_the_same_bytes(
    workers: int, start: tuple[int, int], options: dict[str, Any]
) -> None:
    alone = Batches(Noisy(), 4, seed=5, **options)
    helped = Batches(Noisy(), 4, seed=5, workers=workers, prefetch=3, **options)
    before = global_state()
    stream = helped.stream(*start)
    taken = list(islice(stream, 15))
    stream.close()
    assert global_state() == before
    assert not tree.diff(taken, list(islice(alone.stream(*start), 15)))


def test_columns_through_workers_keep_their_container() -> None:
    columns = {"x": torch.randn(10, 2), "y": torch.arange(10)}
    expected = list(Batches((columns["x"], columns["y"]), 4))
    found = list(Batches((columns["x"], columns["y"]), 4, workers=1))
    assert not tree.diff(found, expected)
    assert {type(batch) for batch in found} == {tuple}


def test_workers_have_one_thread_and_end_with_the_stream() -> None:
    batches = Batches(WhoReads(), 4, workers=2)
    stream = batches.stream()
    read = [batch for _, _, batch in islice(stream, 4 * len(batches))]
    pids = {int(pid) for pids, _ in read for pid in pids}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert {int(n) for _, threads in read for n in threads} == {1}
    stream.close()
    deadline = time.monotonic() + 300
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in pids)


def test_an_error_in_a_worker_is_the_users_and_says_where() -> None:
    with pytest.raises(ValueError, match="reading sample 13 for batch 3 of epoch 0") as caught:
        list(Batches(Broken(), 4, shuffle=False, workers=2))
    assert "a bad sample" in str(caught.value)


def test_a_killed_worker_is_reported() -> None:
    with pytest.raises(WorkerDiedError, match="workers=0"):
        list(Batches(Killed(), 4, shuffle=False, workers=1))


SPAWNED = """
import random
import torch
from functrain import tree
from functrain.data import Batches

class Noisy:
    def __len__(self):
        return 9
    def __getitem__(self, index):
        return torch.randn(3) + random.random() + index

if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn")
    expected = list(Batches(Noisy(), 4))
    assert not tree.diff(list(Batches(Noisy(), 4, workers=1)), expected)
    print("same")
"""


@pytest.mark.slow
def test_spawned_workers_give_the_same_bytes(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "same\n", done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_pinned(workers: int) -> None:
    columns = (torch.randn(10, 2), torch.arange(10))
    found = list(Batches(columns, 4, pin_memory=True, workers=workers))
    assert all(part.is_pinned() for batch in found for part in batch)
    assert not tree.diff(found, list(Batches(columns, 4)))


def test_pin_memory_without_cuda_changes_nothing() -> None:
    batches = Batches(torch.arange(10), 4, pin_memory=not torch.cuda.is_available())
    assert not tree.diff(list(batches), list(Batches(torch.arange(10), 4)))


# -- what goes wrong in workers ------------------------------------------------------------------


def test_an_error_in_a_transform_or_collate_in_a_worker_says_where_with_its_traceback() -> None:
    def bad_transform(sample: Any) -> Any:
        if sample[1] == 13:
            raise KeyError("no such label")
        return sample

    def bad_collate(samples: list[Any]) -> Any:
        raise ArithmeticError("a bad batch")

    with pytest.raises(KeyError, match="reading sample 13 for batch 3 of epoch 0") as caught:
        list(Batches(Noisy(), 4, shuffle=False, workers=1, transform=bad_transform))
    assert 'raise KeyError("no such label")' in str(caught.value)
    with pytest.raises(ArithmeticError, match="collating batch 0 of epoch 0") as second:
        list(Batches(Noisy(), 4, shuffle=False, workers=1, collate=bad_collate))
    assert "in bad_collate" in str(second.value)


class Hangs(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 9:
            time.sleep(600)
        return super().__getitem__(index)


@pytest.mark.slow
@pytest.mark.row(38)
def test_a_hanging_worker_is_reported_with_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch waits so long for a worker to end by itself, five seconds, before it ends it.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    stream = Batches(Hangs(), 4, shuffle=False, workers=1, timeout=2).stream()
    assert [index for _, index, _ in islice(stream, 2)] == [0, 1]
    before = time.monotonic()
    with pytest.raises(WorkerTimeoutError, match=r"batch 2 of epoch 0.*\[8, 9, 10, 11\]"):
        next(stream)
    assert time.monotonic() - before < 300  # the worker sleeps for 600 s


def test_timeout_does_not_apply_without_workers() -> None:
    batches = Batches(Noisy(), 4, timeout=1e-9)
    assert not tree.diff(list(batches), list(Batches(Noisy(), 4)))
    with pytest.raises(ConfigurationError, match="timeout"):
        Batches(Noisy(), 4, timeout=-1)


class KilledOnce(Noisy):
    """Its reader dies at sample 13, unless a file says that it already did."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 13 and not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.row(38)
def test_a_run_whose_worker_was_killed_resumes_with_the_same_bytes(tmp_path: Path) -> None:
    def loss(model: Any, batch: Any) -> Tensor:
        return model(batch[0]).square().mean()

    program = ft.program(torch.nn.Linear(3, 1), loss, ft.optim.SGD(lr=1e-4))

    def run(file: Path, directory: str) -> ft.Run:
        data = Batches(KilledOnce(file), 4, seed=2, workers=1, prefetch=1)
        return ft.fit(program, data, until="2 epochs", directory=tmp_path / directory)

    (tmp_path / "healthy").touch()
    straight = run(tmp_path / "healthy", "one")
    with pytest.raises(WorkerDiedError):
        run(tmp_path / "died", "two")
    assert list((tmp_path / "two").rglob("manifest.json"))  # of the step before it died
    resumed = run(tmp_path / "died", "two")
    assert tree.diff(straight.state, resumed.state) == []
    assert tree.diff(straight.history.rows, resumed.history.rows) == []
    assert resumed.state.counters.step == 12


# -- random streams given by name ----------------------------------------------------------------


def by_generator(sample: Any, *, generator: torch.Generator) -> Tensor:
    return sample[0] + torch.rand((), generator=generator)


def by_rng(sample: Any, rng: np.random.Generator) -> Tensor:
    return sample[0] + rng.random()


class ByMethod:
    def __call__(self, sample: Any, generator: torch.Generator | None = None) -> Tensor:
        assert generator is not None
        return sample[0] + torch.rand((), generator=generator)


@pytest.mark.row(33)
@pytest.mark.parametrize("transform", [by_generator, by_rng, ByMethod()])
def test_a_transform_may_take_the_samples_own_generator(transform: Any) -> None:
    alone = Batches(Noisy(), 4, seed=5, transform=transform)
    helped = Batches(Noisy(), 4, seed=5, transform=transform, workers=2)
    start = global_state()
    assert not tree.diff(list(helped), list(alone))
    assert global_state() == start
    order = torch.cat([alone.indices(0, k) for k in range(6)]).tolist()
    one_by_one = Batches(Noisy(), 1, seed=5, transform=transform, shuffle=False)
    rows = torch.cat(list(alone))
    for place, sample in enumerate(order):
        assert not tree.diff(one_by_one[0, sample][0], rows[place])
    assert tree.diff(alone[1, 0], alone[0, 0])


def test_the_generator_is_not_the_stream_of_the_global_ones() -> None:
    def both(sample: Any, generator: torch.Generator) -> Tensor:
        return torch.stack([torch.rand(()), torch.rand((), generator=generator)])

    drawn = torch.cat(
        [batch for _, _, batch in islice(Batches([0, 1], 1, transform=both).stream(), 4)]
    )
    assert len(drawn.unique()) == 8  # other numbers for each sample, in each epoch


def test_a_transform_whose_sample_is_called_generator_gets_the_sample() -> None:
    (doubled,) = Batches([1, 2], 2, shuffle=False, transform=lambda rng: 2 * rng)
    assert doubled.tolist() == [2, 4]
