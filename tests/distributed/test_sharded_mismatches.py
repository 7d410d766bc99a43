"""Ranks that are given different things: an error on every rank, never a wrong result."""

from __future__ import annotations

from typing import Any

import pytest
import ranks
import torch
from sharded_runs import batches, made

import functrain as ft
from functrain.distributed import current


def seeded_by_rank(where: str) -> None:
    plain, rank = made("MLP"), current().rank
    if where == "model":
        torch.manual_seed(rank)
        loss = lambda model, batch: model(batch).sum()  # noqa: E731
        plain = ft.program(torch.nn.Linear(2, 3), loss, ft.optim.SGD(lr=0.1))
    ft.sharded(plain, parts=2).init(seed=rank if where == "init" else 0)


@pytest.mark.parametrize(("where", "what"), [("model", "state.params"), ("init", "state.rng")])
def test_states_that_begin_differently(where: str, what: str) -> None:
    for error in ranks.outcomes(seeded_by_rank, 2, where):
        assert isinstance(error, ft.errors.RankMismatchError)
        assert what in str(error)
        assert "seed" in str(error)


def with_other_data(form: str) -> None:
    program = ft.sharded(made("Tiny", accumulate=2 if form == "accumulate" else 1), parts=2)
    rank = current().rank
    batch: Any = batches("Tiny", [8 + rank if form == "size" else 8])[0]
    batch = (batch[0] + rank, batch[1])
    given = ft.MicroBatches([batch]) if form == "MicroBatches" else batch
    program.train_step(program.init(), given)


@pytest.mark.parametrize(
    ("form", "what"),
    [("batch", "data"), ("MicroBatches", "data"), ("accumulate", "data"), ("size", "9 samples")],
)
def test_batches_with_other_values_or_of_another_size(form: str, what: str) -> None:
    ranks.require_error(ft.errors.RankMismatchError, what, with_other_data, 2, form)


def with_a_batch_that_cannot_be_cut() -> None:
    program = ft.sharded(made("Tiny"), parts=2)
    batch: Any = batches("Tiny", [8])[0]
    if current().rank == 1:
        batch = (batch[0], batch[1][:7])
    program.train_step(program.init(), batch)


def test_a_batch_that_one_rank_cannot_cut_ends_all() -> None:
    first, second = ranks.outcomes(with_a_batch_that_cannot_be_cut, 2)
    assert isinstance(first, ft.errors.RankFailedError)
    assert "rank 1" in str(first)
    assert isinstance(second, Exception)


def placed_otherwise(given: Any, expected: Any) -> None:
    plain = made("MLP", "SGD", ema=None)
    state = ft.sharded(plain, ft.Placement(shard=given), parts=2).init()
    program = ft.sharded(plain, ft.Placement(shard=expected), parts=2)
    program.train_step(state, batches("MLP", [8])[0])


@pytest.mark.parametrize(
    ("given", "expected"), [("all", "none"), ("all", "optimizer"), ("none", "all")]
)
def test_states_of_another_placement(given: str, expected: str) -> None:
    ranks.require_error(
        ft.errors.UnsupportedError, "program.place(state)", placed_otherwise, 2, given, expected
    )


def with_an_optimizer_of_scalars() -> str:
    """The state begins with a scalar for each parameter, which is never cut."""
    program = ft.sharded(made("MLP", "RAdam"), ft.Placement(shard="all"), parts=2)
    state, _ = program.train_step(program.init(), batches("MLP", [8])[0])
    program.train_step(state, batches("MLP", [8])[0])
    return "done"


def test_a_placed_state_is_known_by_a_leaf_that_is_cut() -> None:
    assert ranks.run(with_an_optimizer_of_scalars, 2) == ["done"] * 2
