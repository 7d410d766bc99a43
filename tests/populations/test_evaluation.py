"""Evaluations of models and metrics that torch.func.vmap cannot map: member by member."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from populations import batch, net, program, require_close
from torch import Tensor, nn

import functrain as ft
from functrain.errors import UnsupportedError

DATA = [batch(number) for number in range(2)]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(6, 4, batch_first=True).double()

    def forward(self, x: Tensor) -> Any:
        return self.layer(x[:, None])[0][:, -1]


def indexing(model: nn.Module, batch: Any) -> ft.Loss:
    x, y = batch
    logits = model(x)
    hard = F.cross_entropy(logits, y, reduction="none") > 1
    matrix = ft.metrics.ConfusionMatrix.of(logits, y, 4)
    return ft.Loss(F.cross_entropy(logits, y), len(y), {"hard": logits[hard].mean(), "m": matrix})


CASES = {
    "lstm": {"model": lambda: Recurrent(nn.LSTM)},
    "gru": {"model": lambda: Recurrent(nn.GRU)},
    "boolean index": {"model": net, "evaluate": indexing},
}


@pytest.mark.parametrize("batches", ["shared", "own"])
@pytest.mark.parametrize("name", CASES)
def test_members_are_evaluated_as_alone(name: str, batches: Any) -> None:
    pop = ft.population(program(**CASES[name]), seeds=[1, 2, 3], batches=batches)
    state = pop.init()
    given = batch(0, None if batches == "shared" else 3)
    found = pop.eval_step(state, given)
    for member in range(3):
        own = batch(0 if batches == "shared" else 5 * member)
        expected = pop.programs[member].eval_step(pop.member(state, member), own)
        require_close(expected, {key: value[member] for key, value in found.items()})


@pytest.mark.parametrize("name", CASES)
def test_a_run_evaluates_them(name: str) -> None:
    pop = ft.population(program(**CASES[name]), {"lr": [0.01, 0.02]})
    stop = ft.EarlyStop(patience=99, upper=1e-9)
    run = ft.fit(pop, DATA, until="1 epoch", eval_data=DATA)
    each = ft.evaluate(pop.programs[1], pop.member(run.state, 1), DATA)
    assert run.history["eval/loss"][0][1] == pytest.approx(each["loss"])
    assert ft.fit(pop, DATA, until="2 epochs", eval_data=DATA, early_stop=stop).new_steps == 2


def test_an_evaluation_with_foreign_random_numbers_is_refused() -> None:
    def noisy(model: nn.Module, batch: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, generator=generator, dtype=torch.float64)
        return F.cross_entropy(model(batch[0]), batch[1]) * noise

    pop = ft.population(program(evaluate=noisy), seeds=[1, 2])
    with pytest.raises(UnsupportedError, match="generator"):
        pop.eval_step(pop.init(), batch(0))
