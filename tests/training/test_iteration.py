"""From loader batches to steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import functrain as ft
from functrain import data
from functrain.data.batch_parts import BatchParts, Sharing
from functrain.training import iteration
from functrain.training.limits import Position

BATCHES = [torch.full((2, 3), float(index)) for index in range(5)]


@pytest.fixture
def state() -> ft.TrainState:
    loss = lambda model, x: model(x).mean()  # noqa: E731
    return ft.program(torch.nn.Linear(3, 1), loss, ft.optim.SGD(lr=0.1)).init()


def test_a_state_stands_where_its_counters_say(state: ft.TrainState) -> None:
    counters = attrs.evolve(state.counters, step=9, epoch=2, batch=3, samples=30)
    found = Position.of(attrs.evolve(state, counters=counters), 7, seconds=90.0)
    assert found == Position(step=9, samples=30, minutes=1.5, epoch=2, batch=3, batches=7)


class Unknown:
    """Data without a length, which counts the batches drawn."""

    drawn = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in BATCHES:
            self.drawn += 1
            yield batch


class Known(Unknown):
    def __len__(self) -> int:
        return len(BATCHES)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("accumulate", "sizes"), [(2, [2, 2, 1]), (3, [3, 2]), (9, [5])])
def test_micro_batches_are_grouped_and_the_rest_is_a_step_too(
    state: ft.TrainState, accumulate: int, sizes: list[int], known: bool
) -> None:
    source = data.as_source(Known() if known else Unknown())
    found = list(iteration.epoch_batches(source, state, accumulate, None))
    assert all(isinstance(given, ft.MicroBatches) for given, _ in found)
    assert [len(given.batches) for given, _ in found] == sizes
    assert [last for _, last in found] == [False] * (len(sizes) - 1) + [True]


def test_a_step_of_one_batch_is_given_the_batch_itself(state: ft.TrainState) -> None:
    found = list(iteration.epoch_batches(data.as_source(BATCHES), state, 1, None))
    assert all(given is batch for (given, _), batch in zip(found, BATCHES, strict=True))


@pytest.mark.parametrize(("kind", "drawn"), [(Known, 1), (Unknown, 2)])
def test_a_batch_is_drawn_ahead_only_where_the_length_is_unknown(
    state: ft.TrainState, kind: type[Unknown], drawn: int
) -> None:
    batches = kind()
    next(iteration.epoch_batches(data.as_source(batches), state, 1, None))
    assert batches.drawn == drawn


def test_an_epoch_ends_at_the_declared_length(state: ft.TrainState) -> None:
    class Longer(Unknown):
        def __len__(self) -> int:
            return 3

    found = list(iteration.epoch_batches(data.as_source(Longer()), state, 1, None))
    assert [last for _, last in found] == [False, False, True]


@attrs.frozen(eq=False)
class ByParts:
    """A device step of a sharded program, of which only the sharing is looked at."""

    sharing: Sharing
    step: Any

    def __call__(self, *given: Any, **options: Any) -> Any:
        return self.step(*given, **options)


@attrs.frozen(eq=False)
class Sharded(ft.Program):
    """A program that trains on the parts it is given, and records them."""

    seen: list[BatchParts] = attrs.field(factory=list)

    def train_step(self, state: ft.TrainState, batch: Any) -> Any:
        """Make a step; the loader batches are those that the parts come from."""
        self.seen.append(batch)
        before = state.counters
        parts = [*batch.parts.values()] or [torch.zeros(1, 3)]
        after, metrics = super().train_step(state, ft.MicroBatches(parts))
        consumed, samples = before.batch + batch.consumed, before.samples + batch.samples
        counters = attrs.evolve(after.counters, batch=consumed, samples=samples)
        return attrs.evolve(after, counters=counters), metrics


def sharded(sharing: Sharing, accumulate: int = 1) -> Sharded:
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    optimizer = ft.optim.SGD(lr=0.1)
    model = lambda: torch.nn.Linear(3, 1)  # noqa: E731
    plain = ft.program(model, loss, optimizer, accumulate=accumulate)
    fields = {field.alias: getattr(plain, field.name) for field in attrs.fields(ft.Program)}
    step = ByParts(sharing, plain.device_step)
    return Sharded(**{**fields, "device_step": step})


def samples() -> data.Batches:
    return data.Batches(torch.arange(54.0).reshape(18, 3) / 54, 4, seed=2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_sharded_program_reads_by_parts_on_one_rank_too(accumulate: int) -> None:
    program = sharded(Sharing(parts=2), accumulate)
    run = ft.fit(program, samples(), until="1 epoch")
    sizes = [given.sizes for given in program.seen]
    full = (2, 2) * accumulate
    expected = {1: [full] * 4 + [(1, 1)], 2: [full] * 2 + [(1, 1)]}
    assert sizes == expected[accumulate]
    assert [len(given.parts) for given in program.seen] == [*map(len, sizes)]
    assert (run.state.counters.samples, run.state.counters.epoch) == (18, 1)
    by_hand = sharded(Sharing(parts=2), accumulate)
    *_, (last, _) = ft.iterate(by_hand, by_hand.init(), samples())
    assert ft.tree.equal(last, run.state)


def test_durations_in_samples_count_the_global_batch() -> None:
    program = sharded(Sharing(parts=4, rank=0, ranks=2))
    ft.fit(program, samples(), until="8 samples")
    assert [given.samples for given in program.seen] == [4, 4]
    assert [[*given.parts] for given in program.seen] == [[0, 1]] * 2


@pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
@pytest.mark.parametrize("kind", [samples, lambda: [torch.ones(4, 3)] * 5, Unknown])
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path, kind: Any) -> None:
    uncut, first = sharded(Sharing(parts=4)), sharded(Sharing(parts=4, rank=1, ranks=2))
    ft.fit(uncut, kind(), until="8 steps")
    ft.fit(first, kind(), until="3 steps", directory=tmp_path)
    other = sharded(Sharing(parts=4, rank=2, ranks=3))
    ft.fit(other, kind(), until="8 steps", directory=tmp_path)
    seen = [*first.seen, *other.seen]
    assert [given.digest for given in seen] == [given.digest for given in uncut.seen]
    for given, whole in zip(seen, uncut.seen, strict=True):
        held = {number: whole.parts[number] for number in given.parts}
        assert ft.tree.equal(dict(given.parts), held)


def test_one_part_on_one_rank_is_the_plain_program() -> None:
    program = sharded(Sharing(parts=1))
    source = iteration.source_of(program, samples())
    batch, _ = next(iteration.epoch_batches(source, program.init(), 1, None))
    assert isinstance(batch, torch.Tensor)
    assert iteration.sharing_of(program) is None
