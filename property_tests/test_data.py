"""Laws of data: a stream cut anywhere equals the uncut stream."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from data_kinds import MAKERS
from hypothesis import given
from hypothesis import strategies as st

from functrain import tree
from functrain.data import (
    Batches,
    Interpolated,
    Mixture,
    Packed,
    Temperature,
    as_source,
    mixed_samples,
)

KINDS = {kind: make for kind, make in MAKERS.items() if "workers" not in kind}
sizes = st.integers(1, 7)
vectors = st.lists(st.floats(0.01, 5.0), min_size=3, max_size=3)
times = st.dictionaries(st.integers(0, 30), vectors, min_size=1, max_size=3)
weights = st.one_of(
    st.just("uniform"),
    vectors,
    times.map(Interpolated),
    vectors.map(lambda start: lambda batch: [start[0] + batch, *start[1:]]),
)
by_size = st.one_of(weights, st.just("proportional"), st.floats(0.3, 9.0).map(Temperature))


def read(source: Any, epoch: int, start: int, saved: Any, epochs: int) -> list[Any]:
    found = []
    for epoch in range(epoch, epochs):
        for batch in source.epoch(7, epoch, start, saved):
            torch.rand(1), random.random()  # the training's own draws
            found.append((batch, source.state()))
        start, saved = 0, None
    source.close()
    return found


def check_cut(make: Callable[[], Mixture], done: int, back: int) -> None:
    torch.manual_seed(0)
    whole = read(as_source(make()), 0, 0, None, epochs=3)
    length = len(make())
    done = done % (len(whole) - 1) + 1
    at = max(done - back, done - 1 - (done - 1) % length)  # a step stays within an epoch
    torch.manual_seed(done), random.seed(done)
    rest = read(as_source(make()), *divmod(at, length), whole[done - 1][1], epochs=3)
    assert not tree.diff([batch for batch, _ in rest], [batch for batch, _ in whole[at:]])


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=3, max_size=3),
    weights=weights,
    length=st.integers(1, 12),
    seed=st.integers(0, 2**70),
    done=st.integers(0, 40),
    back=st.integers(0, 2),
)
def test_a_mixture_of_any_kinds_cut_anywhere(
    kinds: list[str], weights: Any, length: int, seed: int, done: int, back: int
) -> None:
    def make() -> Mixture:
        torch.manual_seed(1)
        sources = [KINDS[kind]() for kind in kinds]
        return Mixture(sources, weights=weights, length=length, seed=seed, with_names=True)

    check_cut(make, done, back if length > 1 else 0)


@given(
    lengths=st.lists(sizes, min_size=3, max_size=3),
    weights=by_size,
    seed=st.integers(-5, 5),
    start=st.integers(0, 60),
)
def test_a_mixture_begins_anywhere_without_a_saved_state(
    lengths: list[int], weights: Any, seed: int, start: int
) -> None:
    def make() -> Mixture:
        data = [Batches(torch.arange(n) + 100 * k, 2) for k, n in enumerate(lengths)]
        return Mixture(data, weights=weights, seed=seed)

    whole = [batch for batch, _ in read(as_source(make()), 0, 0, None, epochs=5)]
    start %= len(whole)
    rest = read(as_source(make()), *divmod(start, len(make())), None, epochs=5)
    assert not tree.diff([batch for batch, _ in rest], whole[start:])


@given(
    lengths=st.lists(sizes, min_size=3, max_size=3),
    weights=by_size,
    batch_size=st.integers(1, 9),
    start=st.integers(0, 30),
)
def test_mixed_samples_begin_anywhere_and_lose_nothing(
    lengths: list[int], weights: Any, batch_size: int, start: int
) -> None:
    data = [torch.arange(n) + 100 * k for k, n in enumerate(lengths)]
    batches = mixed_samples(data, batch_size, weights=weights)
    stream = batches.stream()
    whole = [next(stream)[2] for _ in range(40)]
    fresh = mixed_samples(data, batch_size, weights=weights)
    rest = fresh.stream(*divmod(start, len(fresh)))
    assert not tree.diff([next(rest)[2] for _ in range(40 - start)], whole[start:])
    drawn = torch.cat(whole)
    for k, n in enumerate(lengths):
        own = drawn[(drawn >= 100 * k) & (drawn < 100 * k + 100)]
        for turn in own[: len(own) // n * n].view(-1, n).tolist():
            assert sorted(turn) == list(range(100 * k, 100 * k + n))


documents = st.lists(st.lists(st.integers(1, 99), max_size=9), min_size=1, max_size=8)


@given(documents=documents, length=sizes, separated=st.booleans(), drop_last=st.booleans())
def test_packing_loses_nothing_and_repeats_nothing(
    documents: list[list[int]], length: int, separated: bool, drop_last: bool
) -> None:
    separator = 0 if separated else None
    tokens = [token for document in documents for token in [*document, *[0] * separated]]
    if len(tokens) < (length + 1 if drop_last else 2):
        return
    options: dict[str, Any] = {"separator": separator, "drop_last": drop_last}
    rows = Packed(documents, length, boundaries=True, **options)
    read = [torch.cat(parts) for parts in zip(*(rows[k] for k in range(len(rows))), strict=True)]
    inputs, targets, numbers, positions = [part.tolist() for part in read]
    real = [place for place, number in enumerate(numbers) if number >= 0]
    n = (len(tokens) - 1) // length * length if drop_last else len(tokens) - 1
    assert real == list(range(n))
    assert inputs[:n] == tokens[:n]
    assert targets[:n] == tokens[1 : n + 1]
    assert all(target == -100 for target in targets[n:])
    owners = [k for k, document in enumerate(documents) for _ in range(len(document) + separated)]
    assert numbers[:n] == owners[:n]
    for place in range(n):
        begins = place % length == 0 or owners[place] != owners[place - 1]
        assert positions[place] == (0 if begins else positions[place - 1] + 1)
