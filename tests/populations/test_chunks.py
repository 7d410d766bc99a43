"""Populations that compute some members at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from populations import batch, net, plain_net, program, trained
from torch import nn

import functrain as ft
from functrain.core.state import fields_of
from functrain.errors import ConfigurationError, DonatedStateError
from functrain.populations.evaluation import slices


def _population(members: int = 5, model: Any = net, **options: Any) -> Any:
    rates = [0.01 * (n + 1) for n in range(members)]
    return ft.population(program(model=model), {"lr": rates}, **options)


def _require_same(expected: Any, found: Any) -> None:
    differences = ft.tree.diff(expected, found)
    assert not differences, differences


@given(st.integers(2, 200), st.integers(2, 50))
def test_groups_cover_the_members_and_none_is_of_one(members: int, size: int) -> None:
    found = slices(members, size)
    assert [n for one in found for n in range(members)[one]] == list(range(members))
    sizes = [one.stop - one.start for one in found]
    assert min(sizes) >= 2
    assert max(sizes) <= max(size, 3)
    assert max(sizes) - min(sizes) <= 1


def test_a_single_member_is_one_group() -> None:
    assert slices(1, None) == slices(1, 2) == [slice(0, 1)]


@pytest.mark.parametrize("batches", ["shared", "own"])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_states_and_metrics_are_those_of_all_members_at_once(batches: Any, size: int) -> None:
    whole = _population(batches=batches)
    pop = _population(batches=batches, chunk_size=size)
    (expected, rows), (found, own) = trained(whole, 3), trained(pop, 3)
    _require_same(expected, found)
    _require_same(rows, own)
    given = batch(3, len(pop) if batches == "own" else None)
    _require_same(whole.eval_step(expected, given), pop.eval_step(found, given))


@pytest.mark.long
@pytest.mark.parametrize("donated", [False, True])
def test_a_compiled_population_in_chunks_has_the_same_bytes(donated: bool) -> None:
    wrap = ft.donated if donated else (lambda one: one)
    whole = wrap(ft.compiled(_population(model=plain_net)))
    pop = wrap(ft.compiled(_population(model=plain_net, chunk_size=3)))
    (expected, rows), (found, own) = trained(whole, 3), trained(pop, 3)
    _require_same(expected, found)
    _require_same(rows, own)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_a_donated_compiled_step_in_chunks_keeps_the_memory_of_the_state(backend: str) -> None:
    pop = ft.donated(ft.compiled(_population(4, plain_net, chunk_size=2), backend=backend))
    state, _ = trained(pop, 1)
    places = {path: leaf.data_ptr() for path, leaf in fields_of(state)["params"].items()}
    after, _ = trained(pop, 1, state)
    assert {path: leaf.data_ptr() for path, leaf in after.params.items()} == places
    with pytest.raises(DonatedStateError):
        state.params  # noqa: B018


def test_a_member_that_diverges_in_one_chunk_is_counted_there() -> None:
    pop = ft.population(program(), {"lr": [0.01, 1e300, 0.01, 0.02]}, chunk_size=2)
    state, _ = trained(pop, 4)
    assert (state.counters.skipped > 0).tolist() == [False, True, False, False]


def test_members_that_stop_leave_chunks_of_the_others() -> None:
    whole, pop = _population(), _population(chunk_size=2)
    states = [trained(one, 2)[0] for one in (whole, pop)]
    states = [one.stopped(state, [1, 3]) for one, state in zip((whole, pop), states, strict=True)]
    (expected, _), (found, _) = trained(whole, 2, states[0]), trained(pop, 2, states[1])
    _require_same(expected, found)


def test_convolutions_in_chunks_have_the_same_bytes() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return model(batch).square().mean()

    made = ft.program(model, loss, ft.optim.AdamW(0.01))
    x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for size in (None, 2):
        pop = ft.population(made, {"lr": [0.1, 0.2, 0.3, 0.4]}, chunk_size=size)
        state = pop.init()
        for _ in range(3):
            state, _ = pop.train_step(state, x)
        found.append(state)
    _require_same(*found)


@pytest.mark.parametrize("size", [0, 1, True, 2.0, "2"])
def test_a_chunk_of_less_than_two_is_refused(size: Any) -> None:
    with pytest.raises(ConfigurationError, match="chunk_size: expected an integer >= 2"):
        _population(chunk_size=size)
