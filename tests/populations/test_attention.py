"""Populations of transformers: members have the numbers that they have alone."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from populations import require_close
from torch import Tensor, nn

import functrain as ft

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Attention(nn.Module):
    """Two heads of causal attention, with an optional mask, dropout, and shared keys."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.qkv = kind, nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one.unflatten(-1, (2, 4)).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
        options: dict[str, Any] = {"is_causal": True}
        if self.kind == "mask":
            options = {"attn_mask": torch.ones(6, 6, dtype=torch.bool).tril()}
        elif self.kind == "dropout":
            options["dropout_p"] = 0.4
        elif self.kind == "shared keys":
            k, v, options["enable_gqa"] = k[:, :1], v[:, :1], True
        return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2)


def _encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)


def _several() -> nn.Module:
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True),
        2,
        enable_nested_tensor=False,
    )


MODELS: dict[str, Any] = {
    **{kind: lambda kind=kind: Attention(kind) for kind in ("causal", "mask", "shared keys")},
    "dropout": lambda: Attention("dropout"),
    "encoder layer with dropout": _encoder,
    "encoder": _several,
}


def _loss(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) - batch).square().mean()


def _population(name: str) -> Any:
    program = ft.program(lambda: MODELS[name]().double(), _loss, ft.optim.SGD(0.1, momentum=0.9))
    return ft.population(program, {"lr": [0.1, 0.2, 0.3]}, seeds=[3, 4, 5])


@pytest.mark.parametrize("name", MODELS)
def test_a_transformer_has_the_numbers_of_its_program_alone(name: str) -> None:
    pop = _population(name)
    state, each = pop.init(), [pop.programs[n].init(pop.seeds[n]) for n in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an operation that is repeated for each member
        for _ in range(3):
            state, _ = pop.train_step(state, X)
        metrics = pop.eval_step(state, X)
    for number, program in enumerate(pop.programs):
        own = each[number]
        for _ in range(3):
            own, _ = program.train_step(own, X)
        require_close(own, pop.member(state, number))
        torch.testing.assert_close(metrics["loss"][number], program.eval_step(own, X)["loss"])


@pytest.mark.parametrize("name", ["causal", "dropout", "encoder"])
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_a_compiled_population_of_transformers_has_the_numbers_of_the_eager_one(
    name: str, backend: str
) -> None:
    pop = _population(name)
    compiled = ft.compiled(pop, backend=backend)
    one, other = pop.init(), compiled.init()
    for _ in range(3):
        one, expected = pop.train_step(one, X)
        other, metrics = compiled.train_step(other, X)
        torch.testing.assert_close(metrics["loss"], expected["loss"], rtol=1e-9, atol=0)
    require_close(one, other)
