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
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, get_worker_info

import functrain as ft
from functrain import tree
from functrain.data import Batches
from functrain.errors import (
    ConfigurationError,
    DataChangedError,
    LengthWarning,
    WorkerError,
)


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
    with pytest.raises(WorkerError, match="workers=0"):
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
    with pytest.raises(WorkerError, match=r"batch 2 of epoch 0.*\[8, 9, 10, 11\]"):
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
    with pytest.raises(WorkerError):
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


# -- errors that torch's loaders hide ------------------------------------------------------------


class DiesLater(Noisy):
    """A dataset whose worker dies while the main process computes."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 13:
            time.sleep(0.1)
            os._exit(3)
        return super().__getitem__(index)


def slow(model: Any, batch: Any) -> Tensor:
    end = time.monotonic() + 0.25
    while time.monotonic() < end:
        model(batch[0])
    return model(batch[0]).square().mean()


class SlowListener:
    def on_batch_end(self, event: Any) -> None:
        end = time.monotonic() + 0.25
        while time.monotonic() < end:
            time.sleep(0)


def of_functrain(dataset: Any, workers: int, **options: Any) -> Any:
    return Batches(dataset, 4, shuffle=False, workers=workers, **options)


def of_torch(dataset: Any, workers: int, collate: Any = None) -> Any:
    return DataLoader(dataset, 4, num_workers=workers, collate_fn=collate)


def tiny(loss: Any) -> ft.Program:
    return ft.program(torch.nn.Linear(3, 1), loss, ft.optim.SGD(lr=1e-4))


def fitted(program: ft.Program, data: Any, **options: Any) -> Any:
    return ft.fit(program, data, until="2 epochs", **options)


def iterated(program: ft.Program, data: Any) -> Any:
    return list(ft.iterate(program, program.init(), data))


def evaluated(program: ft.Program, data: Any) -> Any:
    return ft.evaluate(program, program.init(), data)


def evaluated_in_fit(program: ft.Program, data: Any) -> Any:
    return ft.fit(program, [(torch.ones(4, 3), 0)], until="1 step", eval_data=data)


USES = [fitted, iterated, evaluated, evaluated_in_fit]


@pytest.mark.parametrize("made", [of_functrain, of_torch])
@pytest.mark.parametrize("use", USES)
def test_a_worker_that_dies_during_a_step_is_named(use: Any, made: Any) -> None:
    with pytest.raises(WorkerError, match="workers=0"):
        use(tiny(slow), made(DiesLater(), 2))


def test_a_worker_that_dies_during_a_listener_is_named() -> None:
    with pytest.raises(WorkerError, match="workers=0"):
        fitted(tiny(fast), of_functrain(DiesLater(), 2), listeners=[SlowListener()])


def fast(model: Any, batch: Any) -> Tensor:
    return model(batch[0]).square().mean()


class Stops(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 13:
            next(iter(()))
        return super().__getitem__(index)


class StopsInTheBatch(Noisy):
    def batch_at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        if 13 in indices:
            next(iter(()))
        return torch.ones(len(indices), 3), indices


def collate_that_stops(samples: Any) -> Any:
    if samples[0][1] == 12:
        next(iter(()))
    return torch.utils.data.default_collate(samples)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("made", [of_functrain, of_torch])
@pytest.mark.parametrize("use", USES)
def test_a_stop_iteration_of_a_dataset_ends_no_epoch(use: Any, made: Any, workers: int) -> None:
    with pytest.raises(DataChangedError, match=r"Stops.*StopIteration") as caught:
        use(tiny(fast), made(Stops(), workers))
    assert "batch 3 of epoch 0" in str(caught.value)
    assert workers or "13" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("made", [of_functrain, of_torch])
@pytest.mark.parametrize("use", USES)
def test_a_stop_iteration_of_collate_ends_no_epoch(use: Any, made: Any, workers: int) -> None:
    with pytest.raises(DataChangedError, match=r"Noisy.*StopIteration"):
        use(tiny(fast), made(Noisy(), workers, collate=collate_that_stops))


def test_a_stop_iteration_of_other_code_that_makes_batches_ends_no_epoch() -> None:
    def stops(sample: Any) -> Any:
        return next(iter(()))

    for made in (
        Batches(StopsInTheBatch(), 4, shuffle=False),
        Batches(Noisy(), 4, transform=stops),
        of_torch(Subset(Stops(), range(10, 20)), 0),
    ):
        with pytest.raises(DataChangedError, match="StopIteration"):
            evaluated(tiny(fast), made)
        with pytest.raises(DataChangedError, match="StopIteration"):
            fitted(tiny(fast), made)


def test_loaders_that_end_by_a_stop_iteration_end() -> None:
    class Pass:
        left = 3

        def __next__(self) -> Any:
            self.end()
            self.left -= 1
            return torch.ones(4, 3), 0

        def end(self) -> None:
            if not self.left:
                raise StopIteration

    class Loader:
        dataset = Noisy()

        def __iter__(self) -> Any:
            return Pass()

    run = fitted(tiny(fast), Loader())
    assert run.state.counters.step == 6


def test_an_error_of_a_loader_says_where() -> None:
    def batches() -> Any:
        yield torch.ones(4, 3), 0
        yield next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        fitted(tiny(fast), batches())
    assert "batch 1 of epoch 0" in str(getattr(caught.value, "__notes__", ""))


# -- lengths that are estimates ------------------------------------------------------------------


class Shared(IterableDataset[Any]):
    """50 samples, shared by the workers."""

    def __len__(self) -> int:
        return 50

    def __iter__(self) -> Any:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        yield from ((torch.full((3,), float(number)), number) for number in range(first, 50, step))


def of_torchdata(dataset: Any, batch_size: int, num_workers: int) -> Any:
    loader: Any = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    return loader(dataset, batch_size, num_workers=num_workers)


@pytest.mark.parametrize("made", [DataLoader, of_torchdata])
@pytest.mark.parametrize("use", [fitted, iterated])
def test_a_loader_with_more_batches_than_its_length_warns(use: Any, made: Any) -> None:
    loader = made(Shared(), 8, num_workers=2)
    assert sum(1 for _ in loader) > len(loader)
    with pytest.warns(LengthWarning, match=r"over Shared has a length of 7 batches and gives more"):
        use(tiny(fast), loader)


def test_an_evaluation_takes_all_batches_of_such_a_loader(recwarn: Any) -> None:
    program = tiny(fast)
    found = ft.evaluate(program, program.init(), DataLoader(Shared(), 8, num_workers=2))
    expected = ft.evaluate(program, program.init(), DataLoader(Shared(), 50))
    assert found["loss"] == pytest.approx(expected["loss"])
    assert not [each for each in recwarn if each.category is LengthWarning]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_length_that_is_right_needs_no_warning(recwarn: Any, workers: int) -> None:
    fitted(tiny(fast), DataLoader(Shared(), 8, num_workers=workers))
    assert not [each for each in recwarn if each.category is LengthWarning]


def test_data_may_be_endless_with_the_length_of_an_epoch(recwarn: Any) -> None:
    class Endless:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            while True:
                yield torch.ones(4, 3), 0

    assert fitted(tiny(fast), Endless()).state.counters.step == 6
    assert not [each for each in recwarn if each.category is LengthWarning]
