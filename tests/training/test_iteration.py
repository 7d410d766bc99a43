"""From loader batches to steps."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
import torch

import functrain as ft
from functrain import data
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
