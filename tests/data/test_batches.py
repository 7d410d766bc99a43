"""Batches is a pure function of (seed, epoch, index)."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from functrain import tree
from functrain.data import Batches, mixed_samples
from functrain.errors import (
    BatchIndexError,
    ConfigurationError,
    EmptyDatasetError,
    UnsupportedError,
)


class Noisy(Dataset[tuple[Tensor, int]]):
    """Augments with all three generators, as ordinary code does."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(3) + random.random() + np.random.randn()
        return noise + index, index


def global_state() -> list[Any]:
    numpy_state = np.random.get_state(legacy=False)
    numpy_bits = numpy_state["state"]["key"].tobytes()
    return [torch.get_rng_state().tolist(), random.getstate(), str(numpy_state), numpy_bits]


# -- order -----------------------------------------------------------------------------------


@pytest.mark.row(21)
@settings(deadline=None)
@given(
    samples=st.integers(1, 200),
    batch_size=st.integers(1, 50),
    seed=st.integers(),
    epoch=st.integers(0, 1000),
    shuffle=st.booleans(),
)
def test_each_sample_once_an_epoch(
    samples: int, batch_size: int, seed: int, epoch: int, shuffle: bool
) -> None:
    batches = Batches(torch.arange(samples), batch_size, seed=seed, shuffle=shuffle)
    epoch_batches = [batches[epoch, index] for index in range(len(batches))]
    assert len(batches) == len(DataLoader(range(samples), batch_size))  # type: ignore[arg-type]
    assert [len(batch) for batch in epoch_batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert sorted(torch.cat(epoch_batches).tolist()) == list(range(samples))
    if not shuffle:
        assert torch.cat(epoch_batches).tolist() == list(range(samples))


@pytest.mark.row(21)
def test_epochs_differ_and_seeds_differ() -> None:
    orders = {
        tuple(Batches(torch.arange(100), 100, seed=seed)[epoch, 0].tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


@settings(deadline=None)
@given(samples=st.integers(1, 60), batch_size=st.integers(1, 60))
def test_drop_last_drops_the_short_batch_only(samples: int, batch_size: int) -> None:
    if samples < batch_size:
        with pytest.raises(EmptyDatasetError, match=f"{samples} samples.*{batch_size}"):
            Batches(torch.arange(samples), batch_size, drop_last=True)
        return
    batches = Batches(torch.arange(samples), batch_size, drop_last=True)
    assert [len(batch) for batch in batches] == [batch_size] * (samples // batch_size)
    taken = list(islice(batches.stream(), 2 * len(batches)))
    assert [index for _, index, _ in taken] == [*range(len(batches))] * 2


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 6), st.booleans())
def test_a_stream_from_anywhere_is_the_tail_of_the_whole(
    epoch: int, index: int, shuffle: bool
) -> None:
    batches = Batches(Noisy(), 4, seed=5, shuffle=shuffle)
    whole = list(islice(batches.stream(), 40))
    part = list(islice(batches.stream(epoch, index), 8))
    start = epoch * len(batches) + index
    assert not tree.diff(part, whole[start : start + 8])


def test_random_access_equals_the_stream_and_indices_name_the_samples() -> None:
    batches = Batches(Noisy(), 4, seed=5)
    for epoch, index, batch in islice(batches.stream(), 15):
        assert not tree.diff(batch, batches[epoch, index])
        assert torch.equal(batch[1], batches.indices(epoch, index))


def test_order_computed_in_blocks_is_the_same() -> None:
    batches = Batches(torch.arange(100_000), 999, seed=1)
    whole = torch.cat(list(batches))
    assert torch.equal(whole, batches.order(0, 0, len(batches)))
    assert torch.equal(whole[999 * 70 : 999 * 71], batches[0, 70])


# -- random streams of samples -----------------------------------------------------------------


@pytest.mark.row(33)
def test_augmentation_depends_on_seed_epoch_and_sample_only() -> None:
    def by_sample(epoch: int, **options: Any) -> dict[int, list[float]]:
        batches = Batches(Noisy(), **options)
        found = {}
        for index in range(len(batches)):
            noise, samples = batches[epoch, index]
            found |= dict(zip(samples.tolist(), noise.tolist(), strict=True))
        return dict(sorted(found.items()))

    one = by_sample(2, batch_size=4)
    assert by_sample(2, batch_size=7) == one
    assert by_sample(2, batch_size=7, shuffle=False) == one
    assert by_sample(3, batch_size=4) != one
    assert by_sample(2, batch_size=4, seed=1) != one


def shaken(samples: list[Any]) -> Tensor:
    return torch.stack([sample[0] for sample in samples]) + torch.rand(()) + np.random.rand()


@pytest.mark.parametrize("options", [{}, {"collate": shaken}, {"transform": lambda s: s[0]}])
def test_global_generators_are_untouched(options: dict[str, Any]) -> None:
    torch.randn(3), random.gauss(0, 1), np.random.randn()
    before = global_state()
    batches = Batches(Noisy(), 4, **options)
    first = batches[1, 2]
    assert global_state() == before
    list(batches)
    assert global_state() == before
    torch.rand(1), random.random(), np.random.rand()
    assert not tree.diff(batches[1, 2], first)


def test_random_draws_between_batches_do_not_matter() -> None:
    batches = Batches(Noisy(), 4)
    calm = list(batches)
    disturbed = []
    for batch in batches:
        torch.rand(1), random.random(), np.random.rand()
        disturbed.append(batch)
    assert not tree.diff(calm, disturbed)


# -- datasets ----------------------------------------------------------------------------------


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


X, Y = torch.randn(10, 3), torch.arange(10)


@pytest.mark.parametrize(
    "dataset",
    [X, (X, Y), [X, Y], {"x": X, "y": Y}, Pair(X, Y)],
    ids=["tensor", "tuple", "list", "dict", "namedtuple"],
)
def test_columns_keep_their_container(dataset: Any) -> None:
    batches = Batches(dataset, 4, seed=3)
    batch, chosen = batches[1, 0], batches.indices(1, 0)
    expected = tree.map(lambda column: column[chosen], dataset)
    assert type(batch) is type(expected)
    assert not tree.diff(batch, expected)


@pytest.mark.parametrize("dataset", [TensorDataset(X, Y), [(x, y) for x, y in zip(X, Y)]])  # noqa: B905
def test_unshuffled_batches_are_those_of_a_torch_loader(dataset: Any) -> None:
    expected = list(DataLoader(dataset, batch_size=4))
    assert not tree.diff(list(Batches(dataset, 4, shuffle=False)), expected)


def test_numpy_columns_become_tensors_sharing_memory() -> None:
    x = np.arange(6.0).reshape(3, 2)
    read_only = np.arange(3)
    read_only.flags.writeable = False
    batches = Batches({"x": x, "reversed": x[::-1], "y": read_only}, 3, shuffle=False)
    batch = batches[0, 0]
    assert batch["x"].dtype == torch.float64
    assert batch["reversed"].tolist() == x[::-1].tolist()
    assert batch["y"].tolist() == [0, 1, 2]
    x[0, 0] = 7
    assert batches[0, 0]["x"][0, 0] == 7


def test_a_batch_shares_no_memory_with_the_dataset() -> None:
    x = torch.zeros(6, 2)
    for options in ({}, {"transform": lambda sample: sample.add_(1)}):
        for batch in Batches(x, 6, shuffle=False, **options):
            batch.add_(5)
    assert not x.any()


class Doubled(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        return tuple(2 * part for part in super().__getitem__(index))


def test_a_subclass_of_tensor_dataset_is_read_by_samples() -> None:
    assert torch.equal(Batches(Doubled(X, Y), 10, shuffle=False)[0, 0][0], 2 * X)


def test_transform_and_collate_see_single_samples() -> None:
    batches = Batches({"x": X}, 5, shuffle=False, transform=lambda sample: sample["x"].sum())
    assert torch.equal(batches[0, 0], torch.stack([x.sum() for x in X[:5]]))
    batches = Batches((X, Y), 5, shuffle=False, collate=lambda samples: [y for _, y in samples])
    assert batches[0, 1] == [5, 6, 7, 8, 9]


def test_a_long_list_of_tensors_of_uneven_length_is_a_list_of_samples() -> None:
    ragged = [torch.arange(length) for length in range(1, 13)]
    batches = Batches(ragged, 12, shuffle=False, collate=lambda samples: samples)
    assert not tree.diff(batches[0, 0], ragged)


# -- value ------------------------------------------------------------------------------------


def test_is_a_frozen_value_that_can_be_pickled_and_evolved() -> None:
    batches = Batches(Noisy(), 4, seed=5)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        batches.seed = 6  # type: ignore[misc]
    assert not tree.diff(pickle.loads(pickle.dumps(batches))[1, 2], batches[1, 2])
    assert attrs.evolve(batches, batch_size=6).samples == 23
    assert repr(batches) == (
        "Batches(23 samples, batch_size=4, 6 batches an epoch, shuffled by seed 5)"
    )


# -- bad input ----------------------------------------------------------------------------------


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


def _nested() -> Tensor:
    return torch.nested.nested_tensor([X[:2], X[:3]], layout=torch.jagged)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Batches([], 4), EmptyDatasetError, "no samples"),
        (lambda: Batches(torch.zeros(0, 3), 4), EmptyDatasetError, "no samples"),
        (lambda: Batches(X, 0), ConfigurationError, "batch_size: expected an integer >= 1, got 0"),
        (lambda: Batches(X, 2.0), ConfigurationError, "batch_size"),  # type: ignore[arg-type]
        (lambda: Batches(X, 2, workers=-1), ConfigurationError, "workers"),
        (lambda: Batches(X, 2, prefetch=0), ConfigurationError, "prefetch"),
        (lambda: Batches({"x": X, "y": Y[:4]}, 2), ConfigurationError, "'x' has 10.*'y' has 4"),
        (lambda: Batches((X, Y[:4]), 2), ConfigurationError, "column 0 has 10.*column 1 has 4"),
        (lambda: Batches({"x": X, "text": ["a"]}, 2), UnsupportedError, "'text'.*got list"),
        (lambda: Batches((X, torch.tensor(1)), 2), UnsupportedError, "column 1.*scalar"),
        (lambda: Batches({}, 2), UnsupportedError, "without columns"),
        (lambda: Batches(np.array(["a", "b"]), 2), UnsupportedError, "torch cannot hold"),
        (lambda: Batches([X] * 20, 2), UnsupportedError, "samples or columns"),
        (lambda: Batches(Stream(), 2), UnsupportedError, "DataLoader"),
        (lambda: Batches(iter([1]), 2), UnsupportedError, "list_iterator has none"),
        (lambda: Batches({1, 2}, 2), UnsupportedError, "by index"),
        (lambda: Batches("text", 2), UnsupportedError, "by index"),
        (lambda: Batches(X, 2, seed="7"), ConfigurationError, "seed.*str"),  # type: ignore[arg-type]
        (lambda: Batches(X, 2, shuffle="no"), ConfigurationError, "shuffle.*True or False"),  # type: ignore[arg-type]
        (lambda: Batches(X, 2, drop_last="no"), ConfigurationError, "drop_last.*True or False"),  # type: ignore[arg-type]
        (lambda: Batches((X.to_sparse_csr(), Y), 2), UnsupportedError, "column 0.*sparse_csr"),
        (lambda: Batches((_nested(), Y[:2]), 2), UnsupportedError, "column 0.*nested"),
    ],
)
def test_bad_input_has_a_named_error(
    make: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("position", [(0, 3), (0, -1), (-1, 0)])
def test_a_position_that_does_not_exist(position: tuple[int, int]) -> None:
    with pytest.raises(BatchIndexError, match=r"3 batches, 0 to 2"):
        Batches(X, 4)[position]


def test_a_batch_has_two_numbers() -> None:
    with pytest.raises(BatchIndexError, match=r"got \[3\]: the third batch .* batches\[0, 2\]"):
        Batches(X, 4)[3]  # type: ignore[index]


@pytest.mark.parametrize("position", [(0, 4), (0, -1), (-1, 0)])
def test_a_stream_cannot_start_at_an_invalid_position(position: tuple[int, int]) -> None:
    with pytest.raises(BatchIndexError, match=r"no stream from batch"):
        Batches(X, 4).stream(*position)


def test_a_stream_from_the_end_of_an_epoch_starts_with_the_next() -> None:
    assert next(iter(Batches(X, 4).stream(2, 3)))[:2] == (3, 0)


class Broken(Noisy):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 13:
            raise ZeroDivisionError("a bad sample")
        return super().__getitem__(index)


def test_an_error_of_the_dataset_says_where() -> None:
    with pytest.raises(ZeroDivisionError, match="a bad sample") as caught:
        list(Batches(Broken(), 4, shuffle=False))
    assert caught.value.__notes__ == ["(while reading sample 13 for batch 3 of epoch 0)"]
    with pytest.raises(TypeError) as caught_collating:
        list(Batches(Noisy(), 4, collate=lambda samples: 1 + None))  # type: ignore[operator]
    assert caught_collating.value.__notes__ == ["(while collating batch 0 of epoch 0)"]


def test_options_may_be_of_numpy() -> None:
    numpy = Batches(X, np.int64(4), shuffle=np.bool_(False), drop_last=np.bool_(True))
    assert repr(numpy) == repr(Batches(X, 4, shuffle=False, drop_last=True))


def test_a_position_may_be_of_numpy() -> None:
    batches = Batches(torch.arange(10), 4)
    one = np.int64(1)
    assert torch.equal(batches[one, one], batches[1, 1])


@pytest.mark.parametrize("position", [3, (0, slice(2)), (0, 1, 2), (0, 1.0)], ids=repr)
def test_a_position_that_is_no_pair_of_integers_is_refused(position: Any) -> None:
    with pytest.raises(BatchIndexError, match=r"the third batch .* batches\[0, 2\]"):
        Batches(torch.arange(10), 4)[position]


def test_columns_of_the_other_byte_order_have_their_values() -> None:
    values = np.linspace(0.0, 1.0, 6, dtype=">f4")
    assert torch.equal(Batches((values,), 6, shuffle=False)[0, 0][0], torch.linspace(0, 1, 6))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_columns_of_unsigned_integers(dtype: Any) -> None:
    values = np.iinfo(dtype).max - np.arange(12, dtype=dtype).reshape(6, 2)
    batches = Batches({"x": values[:, ::-1]}, 4, shuffle=False)
    assert batches[0, 1]["x"].numpy().dtype == dtype
    assert np.array_equal(batches[0, 1]["x"].numpy(), values[4:, ::-1])
    first = mixed_samples({"a": values, "b": values}, 4)[0, 0]
    assert first.numpy().dtype == dtype
    assert set(first.numpy().flat) <= set(values.flat)
