"""Every kind of data, read from any position of any epoch as in the run that was never stopped.

Each test makes the data again for the resumed run, under other global random states, as a fresh
process would. The oracle is one source read from the beginning to the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_kinds import MAKERS, Noisy, SavesItself, SavesItselfSized, disturb, with_generator
from torch.utils.data import BatchSampler, DataLoader, Sampler, TensorDataset

import functrain as ft
from functrain import tree
from functrain.data import Batches, Source, as_source
from functrain.errors import DataChangedError, EmptyDatasetError, UnsupportedError

EPOCHS = 3
every_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


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


# Worker processes take a while to start.
PLACES = [(kind, "middle" if "workers" in kind else "some") for kind in MAKERS]
PLACES += [(kind, "some" if "workers" in kind else "all") for kind in MAKERS]


@pytest.mark.row(33)
@pytest.mark.sweep("kind")
@pytest.mark.parametrize(("kind", "places"), PLACES)
def test_resumed_after_any_batch_the_rest_is_the_same(kind: str, places: str) -> None:
    disturb(0)
    source = as_source(MAKERS[kind]())
    whole = read(source)
    source.close()
    assert len({epoch for epoch, *_ in whole}) == EPOCHS
    last = len(whole) - 1
    middle = last // 2
    tried = {"middle": [middle], "some": [1, middle, last], "all": range(1, len(whole))}
    for done in tried[places]:
        epoch, start, _, _ = whole[done]
        saved = whole[done - 1][3]
        disturb(done)
        resumed = as_source(MAKERS[kind]())
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


def test_a_state_saved_at_the_end_of_an_epoch_resumes_in_the_next() -> None:
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


def test_workers_persist_from_epoch_to_epoch() -> None:
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
    with pytest.raises(DataChangedError, match=r"generator can be read only once.*epoch 1"):
        list(source.epoch(7, 1, 0, None))
    with pytest.raises(DataChangedError, match="iterated again"):
        list(as_source(iter([1])).epoch(7, 1, 0, None))


def test_an_iterator_continues_where_it_stopped() -> None:
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
        (torch.zeros(3, 2), torch.zeros(3)),
        "path/to/data",
        None,
        5,
    ],
)
def test_data_without_batches_is_refused(data: Any) -> None:
    with pytest.raises(UnsupportedError):
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


def test_data_that_became_shorter_is_reported() -> None:
    source = as_source(DataLoader(TensorDataset(torch.zeros(6)), 2))
    with pytest.raises(DataChangedError, match=r"stands after 5 batches.*ends after 3"):
        list(source.epoch(7, 0, 5, None))
    saved = {"snapshots": [{"epoch": 2, "done": 1, "ended": False, "loader": {}}]}
    with pytest.raises(DataChangedError, match="later place"):
        list(as_source(SavesItself(3)).epoch(7, 1, 0, saved))


# -- generators of samplers ----------------------------------------------------------------------


class Drawn(Sampler[int]):
    """An order drawn from a generator in an attribute, of which each epoch takes more."""

    def __init__(self, rng: Any) -> None:
        self.rng = rng

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        if isinstance(self.rng, torch.Generator):
            return iter(torch.randperm(12, generator=self.rng).tolist())
        order = list(range(12))
        self.rng.shuffle(order)
        return iter(order)


class Both(Sampler[int]):
    def __init__(self, *samplers: Any) -> None:
        self.samplers = samplers

    def __len__(self) -> int:
        return 24

    def __iter__(self) -> Iterator[int]:
        return iter([index for sampler in self.samplers for index in sampler])


SAMPLERS: dict[str, Callable[[], Any]] = {
    "torch": lambda: Drawn(torch.Generator().manual_seed(3)),
    "Python": lambda: Drawn(random.Random(3)),
    "NumPy": lambda: Drawn(np.random.default_rng(3)),
    "NumPy, Mersenne twister": lambda: Drawn(np.random.Generator(np.random.MT19937(3))),
    "NumPy, SFC64": lambda: Drawn(np.random.Generator(np.random.SFC64(3))),
    "NumPy, old": lambda: Drawn(np.random.RandomState(3)),
    "within others": lambda: Both(Drawn(random.Random(3)), Drawn(random.Random(4))),
}


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stop", ["2 steps", "1 epoch", "9 steps"])
@pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
def test_a_sampler_with_a_generator_of_its_own_resumes_exactly(
    tmp_path: Path, name: str, batched: bool, stop: str
) -> None:
    def run(directory: str, until: str) -> Any:
        sampler, data = SAMPLERS[name](), TensorDataset(torch.arange(12.0)[:, None])
        if batched:
            loader: Any = DataLoader(data, batch_sampler=BatchSampler(sampler, 3, False))
        else:
            loader = DataLoader(data, 3, sampler=sampler)
        program = ft.program(
            lambda: torch.nn.Linear(1, 1),
            lambda m, b: m(b[0]).square().mean(),
            ft.optim.SGD(lr=1e-3),
        )
        return ft.fit(
            program, loader, until=until, eval_data=loader, directory=tmp_path / directory
        )

    torch.manual_seed(0)
    straight = run("straight", "4 epochs")
    torch.manual_seed(0)
    run("resumed", stop)
    resumed = run("resumed", "4 epochs")
    assert tree.equal(resumed.state, straight.state)
    assert resumed.history["loss"] == straight.history["loss"]
