"""Hyperparameters of NAdam, RMSprop, Adagrad, Adadelta and Adamax."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from functrain.errors import ConfigurationError
from functrain.optim.methods.adadelta import Adadelta
from functrain.optim.methods.adagrad import Adagrad
from functrain.optim.methods.adamax import Adamax
from functrain.optim.methods.nadam import NAdam
from functrain.optim.methods.rmsprop import RMSprop


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            RMSprop,
            {"alpha": 1.5},
            r"RMSprop: alpha: expected a number from 0 to 1 or a 0-dim tensor, got 1.5",
        ),
        (RMSprop, {"alpha": -0.5}, r"RMSprop: alpha"),
        (RMSprop, {"centered": 1}, r"RMSprop: centered: expected True or False, got 1"),
        (
            Adadelta,
            {"rho": 1.1},
            r"Adadelta: rho: expected a number from 0 to 1 or a 0-dim tensor, got 1.1",
        ),
        (Adadelta, {"rho": "0.9"}, r"Adadelta: rho"),
        (Adagrad, {"initial_accumulator_value": -1.0}, r"Adagrad: initial_accumulator_value"),
        (Adagrad, {"lr_decay": -1.0}, r"Adagrad: lr_decay"),
        (NAdam, {"momentum_decay": -0.1}, r"NAdam: momentum_decay"),
        (Adamax, {"betas": (0.9, 1.0)}, r"Adamax: betas\[1\]"),
    ],
)
def test_a_bad_value_is_refused(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        cls(**options)


POINTS: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (NAdam, {"betas": (0.8, 0.95), "eps": 0.1, "weight_decay": 0.1, "momentum_decay": 0.3}, {}),
    (NAdam, {"weight_decay": 0.1}, {"decoupled_weight_decay": True}),
    (RMSprop, {"alpha": 0.8, "eps": 0.1, "weight_decay": 0.1, "momentum": 0.7}, {}),
    (RMSprop, {"alpha": 0.8, "eps": 0.1, "weight_decay": 0.1}, {"centered": True}),
    (
        Adagrad,
        {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 0.1},
        {},
    ),
    (Adadelta, {"rho": 0.8, "eps": 0.1, "weight_decay": 0.1}, {}),
    (Adamax, {"betas": (0.8, 0.95), "eps": 0.1, "weight_decay": 0.1}, {}),
]


START = {
    "w": torch.tensor([[1.5, -0.3], [-2.2, 0.6], [-1.1, -1.4]], dtype=torch.float64),
    "s": torch.tensor(0.4, dtype=torch.float64),
}


def train(optimizer: Any, lr: Any) -> Tensor:
    params = START
    state = optimizer.init(params)
    alive = torch.tensor([1.0, 0.0], dtype=torch.float64)  # half of the gradient is exactly 0
    for step in range(6):
        turned = (-1.0) ** (step // 2)
        grads = {"w": turned * alive * params["w"] ** 3, "s": params["s"] ** 3}
        params, state = optimizer.update(grads, state, params, lr)
    final = optimizer.eval_params(state, params)
    loss: Tensor = final["w"].square().sum() + final["s"].square()
    return loss


def flat(options: dict[str, Any]) -> list[float]:
    return [each for value in options.values() for each in _several(value)]


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def from_flat(options: dict[str, Any], values: Any) -> dict[str, Any]:
    rest = iter(values)
    return {
        name: (next(rest), next(rest)) if isinstance(value, tuple) else next(rest)
        for name, value in options.items()
    }


@pytest.mark.row(56)
@pytest.mark.parametrize(("cls", "options", "flags"), POINTS)
def test_gradient_to_every_hyperparameter(
    cls: Any, options: dict[str, Any], flags: dict[str, Any]
) -> None:
    def loss(lr: Any, *values: Any) -> Tensor:
        return train(cls(**from_flat(options, values), **flags), lr)

    at = [torch.tensor(value, dtype=torch.float64) for value in [0.05, *flat(options)]]
    assert torch.autograd.gradcheck(loss, [value.requires_grad_() for value in at])


@pytest.mark.row(55)
@pytest.mark.parametrize(("cls", "options", "flags"), POINTS)
def test_vmap_over_every_hyperparameter_equals_a_loop(
    cls: Any, options: dict[str, Any], flags: dict[str, Any]
) -> None:
    values = torch.tensor(flat(options), dtype=torch.float64)
    members = torch.stack([values, values * 0.95, values * 1.02])
    lrs = torch.tensor([0.05, 0.0, 0.1], dtype=torch.float64)

    def member(lr: Tensor, values: Tensor) -> Tensor:
        return train(cls(**from_flat(options, values.unbind()), **flags), lr)

    found = torch.func.vmap(member)(lrs, members)
    for index, lr in enumerate(lrs.tolist()):
        numbers = from_flat(options, members[index].tolist())
        expected = train(cls(**numbers, **flags), lr)
        torch.testing.assert_close(found[index], expected, rtol=1e-12, atol=0)
