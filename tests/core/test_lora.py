"""LoRA through PEFT: only adapters are trained, as by torch, and PEFT takes them back."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import testing, tree

# Where it is needed only, since it takes seconds to import.
pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="needs peft")

X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))


def base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def adapted(dropout: float = 0.0) -> Any:
    import peft

    config = peft.LoraConfig(r=2, target_modules=["0", "2"], lora_dropout=dropout)
    return peft.get_peft_model(base(), config)


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x)[:, 0] - x.sum(1)).square().mean()


def make_run() -> dict[str, Any]:
    program = ft.program(lambda: adapted(dropout=0.5), loss, ft.optim.AdamW(lr=1e-2))
    return {"program": program, "data": ft.data.Batches(X, 8)}


def trained() -> tuple[ft.Program, ft.TrainState]:
    program = ft.program(adapted(), loss, ft.optim.AdamW(lr=1e-2), clip_norm=1.0)
    data = ft.data.Batches(X, 8, shuffle=False)
    return program, ft.fit(program, data, until="2 epochs", progress=False).state


def by_hand() -> Any:
    model = adapted()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, fused=True)
    for batch in X.split(8) * 2:
        optimizer.zero_grad()
        loss(model, batch).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    return model


def test_it_is_trained_as_by_torch() -> None:
    program, state = trained()
    assert program.fixed.trainable
    assert all("lora_" in path for path in program.fixed.trainable)
    expected = {path: parameter.detach() for path, parameter in by_hand().named_parameters()}
    assert tree.equal(dict(state.params), expected)


def test_peft_takes_the_adapters_and_merges_them() -> None:
    import peft

    program, state = trained()
    other, expected = adapted(), by_hand()(X)
    with program.module(state) as model:
        adapters = peft.get_peft_model_state_dict(model)
        merged = copy.deepcopy(model).merge_and_unload()
    peft.set_peft_model_state_dict(other, adapters)
    assert torch.equal(other(X), expected)
    torch.testing.assert_close(merged(X), expected)


def test_the_weights_below_come_from_a_plain_model() -> None:
    def below(name: str) -> str:
        path, _, last = name.rpartition(".")
        return f"base_model.model.{path}.base_layer.{last}"

    pretrained = {path: 2 * value for path, value in base().state_dict().items()}
    program = make_run()["program"]
    state = program.init(params=pretrained, only="*.base_layer.*", rename=below)
    for path, value in pretrained.items():
        assert torch.equal(state.params[below(path)], value)


def test_it_is_pure_and_resumes_with_dropout() -> None:
    program = make_run()["program"]
    testing.check_pure(program, program.init(), X[:8])
    testing.check_resumes(make_run, steps=8, cuts=[3, 5])
