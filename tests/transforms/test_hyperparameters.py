"""Hyperparameters of a program by path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.optim import SGD, AdamW, ClipByBlockRms, Lookahead, groups
from functrain.transforms.hyperparameters import hyperparameters, replaced, with_recipe


def loss(model: nn.Module, batch: Any) -> Any:
    return (model(batch) ** 2).mean()


def made(optimizer: Any, **options: Any) -> ft.Program:
    return ft.program(lambda: nn.Linear(2, 1), loss, optimizer, **options)


def paths(optimizer: Any) -> set[str]:
    found = hyperparameters(made(optimizer).recipe)
    return set(found) - {"clip_norm", "clip_value", "ema"}


def test_the_fields_that_may_be_tensors_are_named() -> None:
    assert paths(AdamW(1e-3)) == {"lr", "betas", "eps", "weight_decay"}


def test_members_of_groups_come_by_name() -> None:
    optimizer = groups([("bias", SGD(0.1)), ("*", AdamW(1e-3))])
    assert {"0.lr", "0.momentum", "1.betas", "1.lr"} <= paths(optimizer)
    assert not {"lr", "betas"} & paths(optimizer)


def test_wrappers_share_a_level_with_the_optimizer_inside() -> None:
    found = paths(Lookahead(ClipByBlockRms(AdamW(1e-3), threshold=1.0)))
    assert found == {"slow_step_size", "threshold", "lr", "betas", "eps", "weight_decay"}


def test_of_two_equal_names_the_inner_one_has_a_prefix() -> None:
    found = paths(ClipByBlockRms(ClipByBlockRms(SGD(0.1), threshold=0.1), threshold=0.2))
    assert {"threshold", "optimizer.threshold", "lr"} <= found


def test_numbers_of_schedules_within_schedules_are_named() -> None:
    schedule = ft.schedules.Scaled(ft.schedules.Cosine(0.1, steps=10), 0.5)
    found = hyperparameters(made(SGD(schedule)).recipe)
    assert found["lr.factor"].value == 0.5
    assert found["lr.schedule.steps"].value == 10
    assert all(found[path].is_rate == path.startswith("lr") for path in found)


VALUES = {
    "lr": 0.5,
    "betas": (0.5, 0.6),
    "eps": 0.125,
    "clip_norm": 2.0,
    "clip_value": 3.0,
    "ema": 0.25,
}


@pytest.mark.parametrize("path", VALUES)
def test_one_is_replaced_and_the_others_stay(path: str) -> None:
    before = made(AdamW(1e-3), ema=0.99).recipe
    after = replaced(before, {path: VALUES[path]})
    old, new = hyperparameters(before), hyperparameters(after)
    assert new[path].value == VALUES[path]
    assert {name: one for name, one in old.items() if name != path} == {
        name: one for name, one in new.items() if name != path
    }


def test_a_member_of_groups_within_a_wrapper_is_replaced() -> None:
    wrapped = Lookahead(groups([("bias", SGD(0.1)), ("*", SGD(0.2))]))
    recipe = replaced(made(wrapped).recipe, {"1.momentum": 0.5})
    found = hyperparameters(recipe)
    assert (found["0.momentum"].value, found["1.momentum"].value) == (0.0, 0.5)


def test_an_average_keeps_its_other_settings() -> None:
    recipe = made(SGD(0.1), ema=ft.EMA(0.9, every=3)).recipe
    assert replaced(recipe, {"ema": 0.5}).ema == ft.EMA(0.5, every=3)


def test_an_average_without_a_decay_is_not_replaced() -> None:
    program = made(SGD(0.1), ema=ft.SWA(start=3))
    for refused in (
        lambda: replaced(program.recipe, {"ema": 0.5}),
        lambda: ft.population(program, {"ema": [0.5, 0.9]}),
        lambda: ft.differentiable(program, {"ema": torch.tensor(0.5)}),
    ):
        with pytest.raises(ConfigurationError, match=r"is the decay of functrain.EMA.*got SWA"):
            refused()
    assert replaced(program.recipe, {"ema": None}).ema is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("weigth_decay", r"hyperparameter 'weigth_decay'.*did you mean 'weight_decay'"),
        ("nesterov", "hyperparameter 'nesterov'.*cannot vary within one program"),
        ("clip", "did you mean 'clip_"),
    ],
)
def test_an_unknown_name_gets_the_nearest(path: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replaced(made(SGD(0.1)).recipe, {path: 1.0})


def test_a_value_out_of_range_is_refused_by_its_field() -> None:
    with pytest.raises(ConfigurationError, match="AdamW: weight_decay: expected"):
        replaced(made(AdamW(1e-3)).recipe, {"weight_decay": -1.0})


@pytest.mark.parametrize("path", ["clip_norm", "clip_value", "ema"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_tensor_gives_the_numbers_of_the_number(path: str, compiled: bool) -> None:
    def trained(value: Any) -> Any:
        program = made(AdamW(1e-3), ema=0.5)
        program = with_recipe(program, replaced(program.recipe, {path: value}))
        if compiled:
            program = ft.compiled(program, backend="eager")
        state = program.init()
        for _ in range(3):
            state, _ = program.train_step(state, torch.arange(8.0).reshape(4, 2))
        return state

    expected, found = trained(0.3), trained(torch.tensor(0.3, dtype=torch.float64))
    assert ft.tree.equal(expected, found)
