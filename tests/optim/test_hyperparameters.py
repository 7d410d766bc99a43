"""Hyperparameters: each is checked, and each counts."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from functrain.errors import ConfigurationError
from functrain.optim import (
    LAMB,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    from_torch,
)

ADAM_CHANGES: dict[str, Any] = {
    "betas": [(0.8, 0.999), (0.9, 0.99)],
    "eps": [1e-2],
    "weight_decay": [0.2],
    "maximize": [True],
}
CHANGES: list[tuple[Optimizer, dict[str, list[Any]]]] = [
    (
        SGD(momentum=0.9, weight_decay=0.1),
        {
            "momentum": [0.5, 0.0],
            "dampening": [0.1],
            "weight_decay": [0.0],
            "nesterov": [True],
            "maximize": [True],
        },
    ),
    (Adam(), {**ADAM_CHANGES, "amsgrad": [True]}),
    (AdamW(), {**ADAM_CHANGES, "amsgrad": [True]}),
    (
        RAdam(weight_decay=0.1),
        {**ADAM_CHANGES, "decoupled_weight_decay": [True], "degenerated_to_sgd": [False]},
    ),
    (
        NAdam(weight_decay=0.1),
        {**ADAM_CHANGES, "momentum_decay": [1.0], "decoupled_weight_decay": [True]},
    ),
    (
        RMSprop(),
        {
            "alpha": [0.5],
            "eps": [1e-2],
            "weight_decay": [0.2],
            "momentum": [0.5],
            "centered": [True],
            "maximize": [True],
        },
    ),
    (
        Adagrad(),
        {
            "lr_decay": [0.5],
            "weight_decay": [0.2],
            "initial_accumulator_value": [1.0],
            "eps": [1e-2],
            "maximize": [True],
        },
    ),
    (Adadelta(), {"rho": [0.5], "eps": [1e-2], "weight_decay": [0.2], "maximize": [True]}),
    (Adamax(), ADAM_CHANGES),
    (Lion(), {"betas": [(0.5, 0.99), (0.9, 0.5)], "weight_decay": [0.2], "maximize": [True]}),
    (LAMB(), ADAM_CHANGES),
    (
        Adafactor(),
        {
            "beta2_decay": [-0.5],
            "eps": [(1.0, 1e-3), (None, 5.0)],
            "weight_decay": [0.2],
            "maximize": [True],
        },
    ),
    (
        Muon(),
        {
            "weight_decay": [0.0],
            "momentum": [0.5],
            "nesterov": [False],
            "ns_coefficients": [(3.0, -4.0, 2.0)],
            "eps": [10.0],
            "ns_steps": [2],
            "adjust_lr_fn": ["match_rms_adamw"],
            "ns_dtype": ["float32"],
        },
    ),
    (
        ScheduleFreeSGD(),
        {"momentum": [0.5], "weight_decay": [0.2], "warmup_steps": [4], "r": [2.0]},
    ),
    (
        ScheduleFreeAdamW(),
        {
            "betas": [(0.5, 0.999), (0.9, 0.8)],
            "eps": [0.1],
            "weight_decay": [0.2],
            "warmup_steps": [4],
            "r": [2.0],
        },
    ),
    (ScheduleFreeAdamW(warmup_steps=4), {"weight_lr_power": [0.0]}),
    (ScheduleFreeSGD(warmup_steps=4), {"weight_lr_power": [0.0]}),
]
EACH = [
    (optimizer, name, value)
    for optimizer, changes in CHANGES
    for name, values in changes.items()
    for value in values
]


def train(optimizer: Optimizer, lr: float = 0.1, kernel: bool = False) -> Tensor:
    torch.manual_seed(0)
    params = {"w": torch.randn(3, 2)}
    state = optimizer.init(params)
    for step in range(8):
        grads = {"w": torch.randn(3, 2) * (0.5**step)}
        if kernel:
            optimizer.update_(grads, state, params, lr)
        else:
            params, state = optimizer.update(grads, state, params, lr)
    return torch.cat([params["w"], optimizer.eval_params(state, params)["w"]])


@pytest.mark.row(15)
@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize(("optimizer", "name", "value"), EACH)
def test_every_hyperparameter_counts(optimizer: Any, name: str, value: Any, kernel: bool) -> None:
    changed = attrs.evolve(optimizer, **{name: value})
    assert not torch.allclose(
        train(optimizer, kernel=kernel), train(changed, kernel=kernel), rtol=1e-4
    )


@pytest.mark.row(15)
@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("optimizer", [optimizer for optimizer, _ in CHANGES], ids=repr)
def test_the_lr_given_counts_and_the_field_does_not(optimizer: Any, kernel: bool) -> None:
    other = attrs.evolve(optimizer, lr=77.0)
    assert not torch.allclose(train(optimizer, 0.1, kernel), train(optimizer, 0.2, kernel))
    assert torch.equal(train(optimizer, 0.1, kernel), train(other, 0.1, kernel))


@pytest.mark.row(15)
def test_adafactor_clips_where_gradients_grow() -> None:
    results = []
    for d in (1.0, 1.5):
        params, adafactor = {"w": torch.ones(3, 2)}, Adafactor(d=d)
        state = adafactor.init(params)
        for step in range(3):
            grads = {"w": torch.full((3, 2), 10.0**step)}
            params, state = adafactor.update(grads, state, params, 0.1)
        results.append(params["w"])
    assert not torch.allclose(*results, rtol=1e-3)


def test_every_field_is_tested() -> None:
    tested: dict[type, set[str]] = {Adafactor: {"d"}}
    for optimizer, changes in CHANGES:
        tested.setdefault(type(optimizer), set()).update({"lr", *changes})
    for cls, names in tested.items():
        assert names == {field.name for field in attrs.fields(cls)}


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (SGD, {"lr": -1.0}, r"SGD: lr: expected a finite number >= 0 or a 0-dim tensor, got -1.0"),
        (
            SGD,
            {"lr": "0.1"},
            r"SGD: lr: expected a finite number >= 0 or a 0-dim tensor, got '0.1'",
        ),
        (SGD, {"lr": math.nan}, r"SGD: lr: .* got nan"),
        (SGD, {"lr": math.inf}, r"SGD: lr: .* got inf"),
        (SGD, {"lr": True}, r"SGD: lr: .* got True"),
        (SGD, {"lr": torch.zeros(2)}, r"SGD: lr: .* got a tensor of shape \(2,\)"),
        (SGD, {"lr": torch.optim.lr_scheduler.StepLR}, r"SGD: lr: .* not a class"),
        (SGD, {"momentum": -0.1}, r"SGD: momentum"),
        (SGD, {"dampening": math.nan}, r"SGD: dampening: expected a finite number"),
        (SGD, {"weight_decay": -0.1}, r"SGD: weight_decay"),
        (SGD, {"nesterov": True}, r"nesterov=True needs momentum > 0 and dampening = 0"),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, r"dampening=0.1"),
        (SGD, {"nesterov": 1, "momentum": 0.9}, r"SGD: nesterov: expected True or False, got 1"),
        (
            Adam,
            {"betas": (1.0, 0.9)},
            r"Adam: betas\[0\]: expected a number in \[0, 1\) or a 0-dim tensor, got 1.0",
        ),
        (Adam, {"betas": (0.9, -0.1)}, r"Adam: betas\[1\]"),
        (Adam, {"betas": (0.9,)}, r"Adam: betas: expected two numbers"),
        (Adam, {"betas": 0.9}, r"Adam: betas: expected two numbers"),
        (AdamW, {"eps": -1e-8}, r"AdamW: eps"),
        (AdamW, {"amsgrad": None}, r"AdamW: amsgrad"),
        (RAdam, {"degenerated_to_sgd": "no"}, r"RAdam: degenerated_to_sgd"),
        (RAdam, {"decoupled_weight_decay": 1}, r"RAdam: decoupled_weight_decay"),
    ],
)
def test_a_bad_value_is_refused(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        cls(**options)


def test_from_torch_refuses_a_bad_lr() -> None:
    with pytest.raises(ConfigurationError, match="lr"):
        from_torch(torch.optim.NAdam, lr=-1.0)


@pytest.mark.parametrize("cls", [SGD, Adam, AdamW, RAdam])
def test_an_optimizer_is_a_frozen_value(cls: Any) -> None:
    optimizer = cls(lr=0.1, weight_decay=0.1)
    assert optimizer == cls(lr=0.1, weight_decay=0.1)
    assert optimizer != cls(lr=0.1, weight_decay=0.2)
    assert repr(optimizer).startswith(f"{cls.__name__}(lr=0.1, ")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        optimizer.lr = 0.2


def test_a_schedule_or_a_tensor_is_a_learning_rate_and_a_list_is_a_pair_of_betas() -> None:
    assert callable(AdamW(lr=lambda step: 0.1).lr)
    assert AdamW(lr=torch.tensor(0.1), betas=[0.8, 0.9]).betas == (0.8, 0.9)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [Adam, AdamW, NAdam, RMSprop, Adagrad, Adadelta, Adamax])
def test_defaults_are_those_of_torch(cls: Any) -> None:
    theirs = getattr(torch.optim, cls.__name__)([torch.zeros(1)]).defaults
    ours = attrs.asdict(cls())
    assert ours == {name: theirs[name] for name in ours}
