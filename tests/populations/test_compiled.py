"""Compiled populations: the members' random numbers, and the same bytes whatever the others are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from populations import alone, batch, net, plain_net, program, require_close, trained

import functrain as ft
from functrain import optim
from functrain.core.state import fields_of
from functrain.errors import CaptureError, ConfigurationError, DonatedStateError


def made(backend: str = "eager", **options: Any) -> Any:
    given = {"lr": [0.1, 0.01, 0.02], "weight_decay": [0.0, 0.1, 0.2], "ema": [0.5, 0.6, 0.7]}
    pop = ft.population(program(ema=0.9, **options), given, seeds=[4, 5, 6])
    return ft.compiled(pop, backend=backend)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_compiled_member_has_the_numbers_of_its_program_alone(accumulate: int) -> None:
    pop = made(accumulate=accumulate)
    state, _ = trained(pop, 4)
    for member in range(3):
        require_close(alone(pop, member, 4)[0], pop.member(state, member))


def test_a_donated_population_is_updated_in_place() -> None:
    pop = made()
    expected, _ = trained(pop, 4)
    donated = ft.donated(pop)
    first, _ = trained(donated, 1)
    place = fields_of(first)["params"]["0.weight"].data_ptr()
    found, _ = trained(donated, 3, first)
    assert found.params["0.weight"].data_ptr() == place
    assert ft.tree.equal(expected, found)
    with pytest.raises(DonatedStateError):
        _ = first.params


def test_a_population_is_compiled_before_the_first_step() -> None:
    pop = ft.donated(made())
    state = pop.init()
    before = ft.copy(state)
    x, y = batch(0)
    pop.warm(state, (x * math.nan, y))
    assert ft.tree.equal(before, state)
    graphs = dict(pop.device_step.graphs)
    assert len(graphs) == 1
    found, _ = trained(pop, 1, state)
    assert pop.device_step.graphs == graphs
    assert ft.tree.equal(trained(made(), 1)[0], found)


def test_own_batches_and_evaluation_of_a_compiled_population() -> None:
    pop = ft.compiled(ft.population(program(), seeds=[1, 2], batches="own"), backend="eager")
    state, _ = trained(pop, 3)
    require_close(alone(pop, 1, 3)[0], pop.member(state, 1))


def test_hyperparameters_that_change_need_no_other_graph() -> None:
    pop = made()
    state, _ = trained(pop, 1)
    state, rows = trained(pop, 1, pop.replaced(state, 0, by=1, weight_decay=0.5))
    assert rows[0]["lr"].tolist() == [0.01, 0.01, 0.02]
    assert len(pop.device_step.graphs) == 1


@pytest.mark.long
@pytest.mark.parametrize("model", [plain_net, net])
def test_a_compiled_member_has_the_same_bytes_whatever_the_others_are(model: Any) -> None:
    values = [0.01, 0.02, 0.5]

    def result(order: list[int]) -> list[Any]:
        rates = {"lr": [values[n] for n in order]}
        pop = ft.compiled(ft.population(program(optim.AdamW(0.1), model), rates, seeds=order))
        state, _ = trained(pop, 3)
        return [pop.member(state, place) for place in range(len(order))]

    expected = result([0, 1, 2])
    for member, found in zip([2, 0], result([2, 0]), strict=True):
        assert ft.tree.equal(expected[member], found)


def test_a_loss_that_reads_values_is_refused_or_runs_eagerly() -> None:
    def reading(model: Any, batch: Any) -> Any:
        value = model(batch[0]).square().mean()
        return value * 2 if batch[0].sum().item() > 0 else value

    base = ft.program(net, reading, optim.SGD(0.1))
    pop = ft.population(base, seeds=[1, 2])
    with pytest.raises(CaptureError):
        trained(ft.compiled(pop, backend="eager"), 1)
    with pytest.warns(ft.errors.FallbackWarning):
        found, _ = trained(ft.compiled(pop, backend="eager", fallback=True), 1)
    assert ft.tree.equal(trained(pop, 1)[0], found)
    with pytest.raises(ConfigurationError, match="eager population"):
        ft.compiled(ft.compiled(pop, backend="eager"))


def test_a_compiled_step_leaves_the_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    trained(made(), 2)
    assert torch.equal(before, torch.get_rng_state())
