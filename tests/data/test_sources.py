"""Every kind of data, read from any position of any epoch as in the run that was never stopped.

Each test makes the data anew for the resumed run, under other global random states, as a fresh
process would. The oracle is one source read from the beginning to the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from functrain import tree
from functrain.data import Batches, Source, as_source
from functrain.errors import (
    DataChangedError,
    DataExhaustedError,
    EmptyDatasetError,
    NotBatchesError,
)

EPOCHS = 3


class Noisy(Dataset[Tensor]):
    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(2) + random.random() + np.random.randn() + 100 * index


class Streamed(IterableDataset[Tensor]):
    """Samples of unknown number, in an order drawn from the global generator."""

    def __iter__(self) -> Iterator[Tensor]:
        for index in torch.randperm(11).tolist():
            yield torch.randn(2) + random.random() + 100 * index


class Rereadable:
    def __iter__(self) -> Iterator[float]:
        return (random.random() + k for k in range(5))


class SavesItself:
    """The smallest loader with a state: its order and position are its own."""

    def __init__(self, seed: int) -> None:
        self.order = random.Random(seed)
        self.load_state_dict({"position": 0, "order": self.order.getstate()})

    def __iter__(self) -> Iterator[Any]:
        if self.position == 0:
            self.started = self.order.getstate()
        batches = list(range(5))
        self.order.shuffle(batches)
        while self.position < 5:
            self.position += 1
            yield batches[self.position - 1] + torch.rand(3) + np.random.rand()
        self.position = 0
        self.started = self.order.getstate()

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "order": self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.started = state["position"], state["order"]
        self.order.setstate(self.started)


class SavesItselfSized(SavesItself):
    def __len__(self) -> int:
        return 5


class StreamedWithState(IterableDataset[Tensor]):
    """A streamed dataset as torchdata asks for one: its iterator can save itself."""

    def __iter__(self) -> Iterator[Tensor]:
        return SavesItselfIterating()


class SavesItselfIterating:
    position = 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        if self.position == 11:
            raise StopIteration
        self.position += 1
        return torch.randn(2) + random.random() + 100 * self.position

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Distributed(RandomSampler):
    """Draws as torch's DistributedSampler does: the same each epoch unless told the epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.epoch)
        return iter(torch.randperm(11, generator=generator).tolist())


def with_generator(**options: Any) -> DataLoader[Tensor]:
    return DataLoader(
        Noisy(), batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(9), **options
    )


def sampler_with_generator() -> DataLoader[Tensor]:
    sampler = RandomSampler(Noisy(), generator=torch.Generator().manual_seed(9))
    return DataLoader(Noisy(), batch_size=2, sampler=sampler)


def stateful_loader(dataset: Any = None, **options: Any) -> Any:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    dataset = Noisy() if dataset is None else dataset
    return torchdata.StatefulDataLoader(dataset, batch_size=2, **options)


MAKERS: dict[str, Callable[[], Any]] = {
    "Batches": lambda: Batches(Noisy(), 2, seed=4),
    "Batches, 2 workers": lambda: Batches(Noisy(), 2, seed=4, workers=2),
    "list": lambda: [torch.ones(3) * k for k in range(5)],
    "DataLoader": lambda: DataLoader(Noisy(), batch_size=2, shuffle=True),
    "DataLoader, 2 workers": lambda: DataLoader(Noisy(), 2, shuffle=True, num_workers=2),
    "DataLoader, persistent workers": lambda: DataLoader(
        Noisy(), 2, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "DataLoader, own generator": with_generator,
    "DataLoader, own generator, 2 workers": lambda: with_generator(num_workers=2),
    "DataLoader, generator of the sampler": sampler_with_generator,
    "DataLoader, set_epoch": lambda: DataLoader(Noisy(), 2, sampler=Distributed(Noisy())),
    "DataLoader, length unknown": lambda: DataLoader(Streamed(), batch_size=2),
    "iterable": Rereadable,
    "own state": lambda: SavesItself(3),
    "own state and length": lambda: SavesItselfSized(3),
    "StatefulDataLoader": lambda: stateful_loader(shuffle=True),
    "StatefulDataLoader, 2 workers": lambda: stateful_loader(
        list(range(11)), shuffle=True, num_workers=2
    ),
    "StatefulDataLoader, own generator": lambda: stateful_loader(
        shuffle=True, generator=torch.Generator().manual_seed(9)
    ),
    "StatefulDataLoader, own generator, 2 workers": lambda: stateful_loader(
        list(range(11)), shuffle=True, generator=torch.Generator().manual_seed(9), num_workers=2
    ),
    "StatefulDataLoader, length unknown": lambda: stateful_loader(StreamedWithState()),
}
every_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def disturb(seed: int) -> None:
    """Global generators as another process would have them."""
    torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)


def read(source: Source, epoch: int = 0, start: int = 0, saved: Any = None) -> list[Any]:
    """All batches to the end of the last epoch, each with its position and the state after it.

    Like the loop of ``fit``: stops at the known length, or looks one batch ahead.
    """
    found = []
    for epoch in range(epoch, EPOCHS):
        batches = source.epoch(7, epoch, start, saved)
        for index, batch in enumerate(batches, start):
            torch.rand(1), random.random(), np.random.rand()  # the training's own draws
            found.append((epoch, index, batch, source.state()))
            if source.length is not None and index + 1 == source.length:
                break
        start, saved = 0, None
    return found


def batches_of(found: list[Any]) -> list[Any]:
    return [(epoch, index, batch) for epoch, index, batch, _ in found]


@every_kind
@pytest.mark.row(33)
def test_resumed_after_any_batch_the_rest_is_the_same(make: Callable[[], Any]) -> None:
    disturb(0)
    source = as_source(make())
    whole = read(source)
    source.close()
    assert len({epoch for epoch, *_ in whole}) == EPOCHS
    for done in range(1, len(whole)):
        epoch, start, _, _ = whole[done]
        saved = whole[done - 1][3]
        disturb(done)
        resumed = as_source(make())
        rest = batches_of(read(resumed, epoch, start, saved))
        resumed.close()
        assert not tree.diff(rest, batches_of(whole[done:])), f"resumed at {epoch, start}"


@pytest.mark.row(33)
@pytest.mark.parametrize("kind", [kind for kind in MAKERS if "unknown" in kind] + ["own state"])
def test_a_loop_that_looks_ahead_can_resume_too(kind: str) -> None:
    """The state is saved when one more batch has been drawn than was used."""
    make = MAKERS[kind]
    disturb(0)
    source = as_source(make())
    assert source.length is None
    whole = read(source)
    for done in range(1, len(whole) - 1):
        epoch, start, _, _ = whole[done]
        if start == 0:
            continue
        disturb(done)
        rest = batches_of(read(as_source(make()), epoch, start, whole[done][3]))
        assert not tree.diff(rest, batches_of(whole[done:])), f"resumed at {epoch, start}"


def global_state() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]


@every_kind
def test_global_generators_are_untouched(make: Callable[[], Any]) -> None:
    disturb(0)
    source = as_source(make())
    before = global_state()
    for _ in source.epoch(7, 0, 0, None):
        assert global_state() == before
        source.state()
    assert global_state() == before
    source.close()


@pytest.mark.row(21)
@pytest.mark.parametrize(
    "kind", ["Batches", "DataLoader", "DataLoader, own generator", "DataLoader, set_epoch"]
)
def test_epochs_differ_in_order(kind: str) -> None:
    source = as_source(MAKERS[kind]())
    orders = [
        torch.cat(list(source.epoch(7, epoch, 0, None)))[:, 0].div(100).round().tolist()
        for epoch in range(EPOCHS)
    ]
    assert len({tuple(order) for order in orders}) == EPOCHS


def test_a_loader_with_its_own_generator_has_the_order_it_has_in_a_plain_loop() -> None:
    def make() -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(9)
        return DataLoader(TensorDataset(torch.arange(11)), 2, shuffle=True, generator=generator)

    plain, source = make(), as_source(make())
    expected = [list(plain) for _ in range(EPOCHS)]
    assert not tree.diff([list(source.epoch(7, e, 0, None)) for e in range(EPOCHS)], expected)


def test_a_state_that_was_saved_before_the_epoch_ended_leads_to_the_next_epoch() -> None:
    """A loop that counts batches may never ask a source for what comes after the last one."""
    source = as_source(SavesItself(3))
    first = source.epoch(7, 0, 0, None)
    for _ in range(5):
        next(first)
    saved = source.state()
    expected = list(source.epoch(7, 1, 0, saved))
    resumed = as_source(SavesItself(3))
    assert not tree.diff(list(resumed.epoch(7, 1, 0, saved)), expected)


class Fails(SavesItselfSized):
    fails = True

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            if self.position == 4 and self.fails:
                raise OSError("the disk is gone")
            yield batch


@pytest.mark.row(38)
def test_a_loader_that_failed_is_resumed_before_the_batch_that_failed() -> None:
    healthy = Fails(3)
    healthy.fails = False
    expected = list(as_source(healthy).epoch(7, 0, 0, None))
    source = as_source(Fails(3))
    with pytest.raises(OSError, match="disk"):
        list(source.epoch(7, 0, 0, None))
    mended = Fails(3)
    mended.fails = False
    rest = list(as_source(mended).epoch(7, 0, 3, source.state()))
    assert not tree.diff(rest, expected[3:])


def test_the_state_of_a_source_that_was_not_read_yet_is_the_saved_one() -> None:
    for make in (with_generator, lambda: SavesItself(3)):
        source = as_source(make())
        next(source.epoch(7, 0, 0, None))
        saved = source.state()
        resumed = as_source(make())
        resumed.epoch(7, 0, 1, saved)
        again = as_source(make())
        rest = list(again.epoch(7, 0, 1, resumed.state()))
        assert not tree.diff(rest, list(as_source(make()).epoch(7, 0, 1, saved)))


def test_sources_know_their_length_and_cost() -> None:
    expected = {
        "Batches": (6, False),
        "list": (5, False),
        "DataLoader": (6, True),
        "DataLoader, length unknown": (None, True),
        "own state": (None, False),
    }
    for kind, (length, replays) in expected.items():
        source = as_source(MAKERS[kind]())
        assert (source.length, source.replays) == (length, replays)
        assert as_source(source) is source


def test_workers_live_on_from_epoch_to_epoch() -> None:
    source = as_source(Batches(Noisy(), 2, workers=1))
    list(source.epoch(7, 0, 0, None))
    stream = source._stream  # type: ignore[attr-defined]
    list(source.epoch(7, 1, 0, None))
    assert source._stream is stream  # type: ignore[attr-defined]
    source.close()


# -- iterators ---------------------------------------------------------------------------------


def test_an_iterator_is_read_once() -> None:
    source = as_source(k for k in range(5))
    assert list(source.epoch(7, 0, 2, None)) == [2, 3, 4]
    with pytest.raises(DataExhaustedError, match=r"generator can be read only once.*epoch 1"):
        list(source.epoch(7, 1, 0, None))
    with pytest.raises(DataExhaustedError, match="iterated again"):
        list(as_source(iter([1])).epoch(7, 1, 0, None))


def test_an_iterator_goes_on_where_it_was_left() -> None:
    source = as_source(k for k in range(5))
    first = source.epoch(7, 0, 0, None)
    assert [next(first), next(first)] == [0, 1]
    assert list(source.epoch(7, 0, 2, None)) == [2, 3, 4]


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(torch.zeros(3)),
        torch.zeros(3, 2),
        {"x": torch.zeros(3)},
        "path/to/data",
        None,
        5,
    ],
)
def test_what_gives_no_batches_is_refused(data: Any) -> None:
    with pytest.raises(NotBatchesError):
        as_source(data)


class Empty(SavesItself):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


@pytest.mark.row(11)
@pytest.mark.parametrize(
    "make",
    [
        list,
        lambda: iter(()),
        lambda: DataLoader(TensorDataset(torch.zeros(3)), 4, drop_last=True),
        lambda: DataLoader(TensorDataset(torch.zeros(0)), 4),
        lambda: Empty(0),
    ],
)
def test_an_epoch_without_batches_is_an_error(make: Callable[[], Any]) -> None:
    with pytest.raises(EmptyDatasetError):
        list(as_source(make()).epoch(7, 0, 0, None))


def test_data_that_became_shorter_is_named() -> None:
    source = as_source(DataLoader(TensorDataset(torch.zeros(6)), 2))
    with pytest.raises(DataChangedError, match=r"saved after 5 batches.*ends after 3"):
        list(source.epoch(7, 0, 5, None))
    saved = {"snapshots": [{"epoch": 2, "done": 1, "ended": False, "loader": {}}]}
    with pytest.raises(DataChangedError, match="later place"):
        list(as_source(SavesItself(3)).epoch(7, 1, 0, saved))
