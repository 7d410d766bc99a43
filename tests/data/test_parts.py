"""The parts that the ranks read, one after another, are the batch; state and position agree."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset

from functrain import tree
from functrain.core import batch_splitting
from functrain.data import Batches, Mixture, Packed, Source, as_source, mixed_samples, size
from functrain.data.batch_parts import BatchParts, Sharing
from functrain.data.parts import by_parts, step_parts
from functrain.data.prefetched import Prefetched
from functrain.errors import UnsupportedError


class Noisy(Dataset[tuple[Tensor, str]]):
    """Samples that are augmented at random, and record which were read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        self.read.append(index)
        return torch.rand(2) + 10 * index, f"sample {index}"


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return (torch.rand(2) + index for index in range(11))


class Stateful:
    """A loader with a state of its own, and no length."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Any:
        while self.at < 7:
            self.at += 1
            yield torch.rand(5, 2) + self.at
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(Noisy(23), batch_size=5, shuffle=True, **options)


def nested() -> Mixture:
    inner = Mixture([Batches(torch.arange(7), 3), Stateful()], weights=[0.6, 0.4], length=5)
    weights = {"inner": 0.5, "text": 0.3, "loader": 0.2}
    sources = {"inner": inner, "text": Batches(Noisy(9), 4), "loader": loader()}
    return Mixture(sources, weights=weights, length=13, seed=3, with_names=True)


def torchdata_loader() -> Any:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    torch.manual_seed(0)  # its sampler is seeded when it is made
    return module.StatefulDataLoader(Noisy(23), batch_size=5, shuffle=True)


def hugging_face() -> Any:
    rows = [[float(row), 1.0] for row in range(23)]
    return pytest.importorskip("datasets").Dataset.from_dict({"x": rows, "y": [*range(23)]})


def augmented(row: Any) -> Any:
    return {"x": torch.tensor(row["x"]) + torch.rand(2), "y": row["y"]}


KINDS: dict[str, Callable[[], Any]] = {
    "columns": lambda: Batches({"x": torch.arange(23), "y": torch.rand(23, 2).fill_(1)}, 5),
    "samples": lambda: Batches(Noisy(23), 6, seed=7),
    "drop_last": lambda: Batches(Noisy(23), 6, drop_last=True),
    "ordered": lambda: Batches(Noisy(4), 9, shuffle=False),
    "packed": lambda: Batches(Packed(torch.arange(97), 4, boundaries=True), 7),
    "mixed": lambda: mixed_samples([torch.arange(4.0), torch.arange(9.0)], 5, length=4),
    "mixture": nested,
    "list": lambda: [torch.arange(size) for size in (4, 1, 0, 6, 3)],
    "loader": loader,
    "iterable": lambda: DataLoader(Stream(), batch_size=4),
    "stateful": Stateful,
    "seeded loader": lambda: loader(generator=torch.Generator().manual_seed(3)),
    "torchdata": lambda: torchdata_loader(),
    "hugging_face": lambda: Batches(hugging_face(), 5, transform=augmented),
    "hugging_face tensors": lambda: Batches(hugging_face().with_format("torch"), 5),
}
kinds = st.sampled_from(sorted(KINDS))


def steps(source: Source, position: tuple[int, int], accumulate: int, saved: Any = None) -> Any:
    """Yield each group of loader batches of an epoch from a position on, and the state after it."""
    epoch, start = position
    batches = source.epoch(5, epoch, start, saved)
    length, group, done = source.length, [], start
    for batch in batches:
        done += 1
        group.append(batch)
        if len(group) == accumulate or done == length:
            yield group, source.state(), (epoch, done)
            group = []
    if group:
        yield group, source.state(), (epoch, done)


def read(kind: str, sharing: Sharing | None, accumulate: int, **at: Any) -> list[Any]:
    """Read two epochs from a position on."""
    source = as_source(KINDS[kind]())
    if sharing is not None:
        source = by_parts(source, sharing, accumulate)
    (epoch, start), saved = at.get("position", (0, 0)), at.get("saved")
    found = [*steps(source, (epoch, start), accumulate, saved)]
    found += steps(source, (epoch + 1, 0), accumulate)
    source.close()
    if sharing is None:
        return found
    return [(step_parts(group, sharing), state, done) for group, state, done in found]


def whole_parts(group: list[Any], parts: int) -> list[Any]:
    """Return the parts that one process cuts of whole batches."""
    cut = [batch_splitting.into(batch, parts) for batch in group if size(batch)]
    return [*itertools.chain(*cut)]


@settings(deadline=None, max_examples=40)
@given(kind=kinds, parts=st.integers(1, 7), ranks=st.integers(1, 9), accumulate=st.integers(1, 3))
def test_the_parts_of_all_ranks_are_the_batch(
    kind: str, parts: int, ranks: int, accumulate: int
) -> None:
    check_parts(kind, parts, ranks, accumulate)


@pytest.mark.parametrize("kind", ["columns", "mixture"])
@pytest.mark.parametrize("accumulate", [2, 3])
@pytest.mark.parametrize("start", range(5))
def test_steps_begin_where_a_run_goes_on(kind: str, accumulate: int, start: int) -> None:
    check_parts(kind, 3, 4, accumulate, position=(0, start))


def check_parts(kind: str, parts: int, ranks: int, accumulate: int, **at: Any) -> None:
    whole = read(kind, None, accumulate, **at)
    every = [read(kind, Sharing(parts, rank, ranks), accumulate, **at) for rank in range(ranks)]
    for (group, state, done), *found in zip(whole, *every, strict=True):
        held = [one for one, _, _ in found]
        together = {number: part for one in held for number, part in one.parts.items()}
        expected = whole_parts(group, parts)
        assert [*together] == [*range(len(expected))]
        assert tree.diff([*together.values()], expected) == []
        for rank, (one, own, at) in enumerate(found):
            assert [*one.parts] == [*range(one.bounds[rank], one.bounds[rank + 1])]
            assert one.sizes == tuple(map(size, expected))
            assert one.consumed == len(group)
            assert one.empty == sum(not size(batch) for batch in group)
            assert (one.bounds, one.digest) == (held[0].bounds, held[0].digest)
            assert (at, tree.diff(own, state)) == (done, [])


@settings(deadline=None, max_examples=40)
@given(
    kind=kinds,
    parts=st.integers(1, 5),
    worlds=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    accumulate=st.integers(1, 3),
    stop=st.integers(0, 30),
)
def test_a_state_saved_on_some_ranks_resumes_on_others(
    kind: str, parts: int, worlds: tuple[int, int], accumulate: int, stop: int
) -> None:
    before, after = worlds
    uncut = read(kind, Sharing(parts), accumulate)
    first = [read(kind, Sharing(parts, rank, before), accumulate) for rank in range(before)]
    stop %= len(uncut)
    _, saved, position = first[stop % before][stop]
    rest = [
        read(kind, Sharing(parts, rank, after), accumulate, position=position, saved=saved)
        for rank in range(after)
    ]
    alone = read(kind, None, accumulate, position=position, saved=saved)
    assert len(uncut) - stop - 1 <= len(alone) == len(rest[0])
    for (_, state, _), *found in zip(alone, *rest, strict=True):
        assert all(tree.diff(own, state) == [] for _, own, _ in found)
    for (expected, _, done), *found in zip(uncut[stop + 1 :], *rest, strict=False):
        together = {number: part for one, _, _ in found for number, part in one.parts.items()}
        assert tree.diff(together, expected.parts) == []
        for one, _, at in found:
            assert (one.sizes, one.digest, at) == (expected.sizes, expected.digest, done)


@pytest.mark.parametrize("kind", ["samples", "mixture"])
def test_workers_read_the_same_parts(kind: str) -> None:
    def data(workers: int) -> Any:
        samples = Batches(Noisy(23), 6, seed=7, workers=workers, prefetch=2)
        other = Batches(torch.arange(7), 3, workers=workers)
        return samples if kind == "samples" else Mixture([samples, other, [torch.ones(3)] * 2])

    sharing = Sharing(parts=4, rank=1, ranks=3)
    found = []
    for workers in (0, 2):
        source = by_parts(as_source(data(workers)), sharing, accumulate=3)
        epochs = [*steps(source, (0, 0), 3), *steps(source, (1, 0), 3)]
        found.append([step_parts(group, sharing) for group, _, _ in epochs])
        source.close()
    assert tree.diff(found[1], found[0]) == []


def test_a_rank_reads_only_the_samples_of_its_parts() -> None:
    read = []
    for rank in range(3):
        data = Noisy(23)
        sharing = Sharing(parts=4, rank=rank, ranks=3)
        source = by_parts(as_source(Batches(data, 8, shuffle=False)), sharing)
        assert len([*source.epoch(0, 0, 0, None)]) == 3
        read.append(data.read)
    # The batches 0-7, 8-15 and 16-22 have parts of 2, 2, 2, 2 (in the last: 1) samples.
    assert read[0] == [0, 1, 8, 9, 16, 17]
    assert read[1] == [2, 3, 10, 11, 18, 19]
    assert read[2] == [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22]


def padded(samples: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(samples, batch_first=True) + torch.rand(())


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_part_is_collated_apart_in_its_own_stream(ranks: int) -> None:
    data = Batches([3, 1, 1, 2, 1, 1], 6, shuffle=False, transform=torch.ones, collate=padded)
    every = [by_parts(as_source(data), Sharing(3, rank, ranks)) for rank in range(ranks)]
    found = [part for one in every for part in next(one.epoch(0, 0, 0, None)).parts.values()]
    assert [tuple(part.shape) for part in found] == [(2, 3), (2, 2), (2, 1)]
    noise = [float(part.flatten()[0]) for part in found]
    assert len({*noise}) == 3
    alone = by_parts(as_source(data), Sharing(3))
    assert tree.diff(found, [*next(alone.epoch(0, 0, 0, None)).parts.values()]) == []


def test_a_part_without_samples_after_collate_is_refused() -> None:
    data = Batches(list(range(4)), 4, shuffle=False, collate=lambda s: torch.tensor(s[: s[0]]))
    source = by_parts(as_source(data), Sharing(parts=2, rank=0, ranks=2))
    with pytest.raises(UnsupportedError, match=r"left no samples in part 0 of batch 0 of epoch 0"):
        next(source.epoch(0, 0, 0, None))
    other = by_parts(as_source(data), Sharing(parts=2, rank=1, ranks=2))
    assert next(other.epoch(0, 0, 0, None)).sizes == (2, 2)


class Recording:
    """Transfers that record what is copied."""

    def __init__(self) -> None:
        self.copied: list[Any] = []

    def begin(self, batch: Any) -> Any:
        self.copied.append(batch)
        return batch

    def finish(self, begun: Any) -> Any:
        return begun


@pytest.mark.parametrize("kind", ["columns", "list", "mixture", "loader"])
def test_only_the_parts_of_a_rank_are_copied_to_its_device(kind: str) -> None:
    data, other = KINDS[kind](), KINDS[kind]()
    transfer, sharing = Recording(), Sharing(parts=4, rank=1, ranks=2)
    source = by_parts(Prefetched(as_source(data), transfer, 2), sharing, accumulate=2)
    direct = by_parts(as_source(other), sharing, accumulate=2)
    found = [step_parts(group, sharing) for group, _, _ in steps(source, (0, 0), 2)]
    plain = [step_parts(group, sharing) for group, _, _ in steps(direct, (0, 0), 2)]
    assert tree.diff(found, plain) == []
    assert all(isinstance(batch, BatchParts) for batch in transfer.copied)
    assert source.length == as_source(data).length


class Split:
    """An iterable of a package that splits its data by rank."""

    world_size = 4

    def __iter__(self) -> Any:
        return iter([torch.ones(2)])


def distributed(ranks: int) -> Any:
    return DistributedSampler(range(8), num_replicas=ranks, rank=0)


def by_node() -> Any:
    stream = Stream()
    stream._distributed = SimpleNamespace(rank=0, world_size=2)
    return stream


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DataLoader(Noisy(8), 2, sampler=distributed(4)), "DataLoader.sampler, a Distributed"),
        (
            DataLoader(Noisy(8), batch_sampler=BatchSampler(distributed(4), 2, drop_last=False)),
            "DataLoader.batch_sampler.sampler, a DistributedSampler, gives each of 4 ranks",
        ),
        (DataLoader(by_node(), 2), "DataLoader.dataset, a Stream, gives each of 2 ranks"),
        (Split(), "Split, a Split, gives each of 4 ranks other samples"),
        (Mixture([[1.0], Split()], length=3, weights="uniform"), "Split, a Split, gives each of 4"),
        (Prefetched(as_source(Split()), Recording(), 1), "Split, a Split, gives each of 4 ranks"),
    ],
)
def test_data_that_are_split_by_rank_are_refused(data: Any, said: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(said)):
        by_parts(as_source(data), Sharing(parts=2, rank=0, ranks=2))


def test_a_sampler_of_one_rank_splits_nothing() -> None:
    data = DataLoader(Noisy(8), 4, sampler=distributed(1))
    source = by_parts(as_source(data), Sharing(parts=2, rank=0, ranks=2))
    assert len([*source.epoch(0, 0, 0, None)]) == 2


def test_the_digest_shows_a_rank_that_reads_other_data() -> None:
    def digests(data: Any) -> list[int]:
        source, sharing = by_parts(as_source(data), Sharing(2)), Sharing(2)
        return [step_parts(group, sharing).digest for group, _, _ in steps(source, (0, 0), 1)]

    columns = {"x": torch.arange(24)}
    assert digests(Batches(columns, 4)) == digests(Batches(columns, 4))
    assert digests(Batches(columns, 4)) != digests(Batches(columns, 4, seed=1))
    batches = [torch.zeros(4, 2), torch.ones(4, 2)]
    assert digests(batches) == digests([torch.zeros(4, 2), torch.ones(4, 2)])
    assert digests(batches) != digests(batches[::-1])
    named = [{"a": Batches(columns, 4), "b": Batches(columns, 4)}[name] for name in "ab"]
    assert digests(Mixture(named, seed=1)) != digests(Mixture(named, seed=2))
