"""The operation in which the first NaN or infinity of a step appeared, for ``detect_anomaly``."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import attrs
import pytest
import ranks
import torch
from models import mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import functrain as ft
from functrain import errors, tree

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
SGD = ft.optim.SGD(lr=0.1)


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(-x.square() - 1)


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.detach()).abs().sqrt()


class Attention(nn.Module):
    """Has infinities that belong there."""

    def forward(self, x: Tensor) -> Tensor:
        later = torch.ones(len(x), len(x)).triu(1).bool()
        return (x @ x.T).masked_fill(later, -math.inf).softmax(-1) @ x


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), Root())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = checkpoint(self.inner, x, use_reentrant=False)
        return result


def squared(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def summed(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).sum()


def divided(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) / 0).mean()


def nested(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), Attention(), nn.Sequential(nn.Tanh(), layer))


def made(layer: Any, loss: Any = squared, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    module = nested(layer) if isinstance(layer, nn.Module) else layer()
    return ft.program(module, loss, SGD, **{"detect_anomaly": True, **options})


def place_of(program: ft.Program, batch: Any = X, state: Any = None) -> str:
    """Return the place from the error or the only warning of a step."""
    state = program.init() if state is None else state
    with warnings.catch_warnings(record=True, action="always") as caught:
        try:
            program.train_step(state, batch)
        except errors.NonFiniteError as error:
            assert error.place is not None
            assert error.place[1:] in str(error)
            return error.place
    (warning,) = caught
    assert warning.category is errors.AnomalyWarning
    return str(warning.message)


CASES: list[tuple[Any, Any, str]] = [
    (Logarithm(), squared, r"the first NaN is from log in the module '2\.1' \(.*test_anomaly.py:"),
    (Root(), summed, r"from the backward pass of sqrt in the module '2\.1' \(.*test_anomaly.py:"),
    (nn.Identity(), divided, r"infinity from div \(.*test_anomaly.py:"),
    (Checkpointed(), summed, r"backward pass of sqrt in the module '2\.1\.inner\.1' \("),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"accumulate": 2},
    {"precision": "bf16"},
    {"nonfinite": "skip"},
    {"nonfinite": "ignore"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@pytest.mark.parametrize(("layer", "loss", "expected"), CASES, ids=["log", "root", "div", "again"])
def test_module_operation_and_line_are_named(
    layer: nn.Module, loss: Any, expected: str, options: dict[str, Any]
) -> None:
    program = made(layer, loss, **options)
    state = program.init()
    before = ft.copy(state)
    assert re.search(expected, place_of(program, state=state))
    assert tree.equal(state, before)


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "ignore"])
@pytest.mark.parametrize(
    "transform", [ft.donated, lambda p: ft.donated(ft.compiled(p, backend="eager"))]
)
def test_donated_and_compiled_steps_are_repeated_eagerly(transform: Any, nonfinite: Any) -> None:
    program = transform(made(Logarithm(), nonfinite=nonfinite))
    assert "from log in the module '2.1'" in place_of(program)


def test_values_that_were_given_are_named() -> None:
    program = made(nn.Identity())
    assert "the first NaN is from the batch" in place_of(program, X * math.nan)
    state = program.init()
    weight = torch.full((4, 4), math.inf)
    state = attrs.evolve(state, params={**state.params, "0.weight": weight})
    assert "infinity from the parameter '0.weight'" in place_of(program, X, state)


def test_without_the_option_the_error_names_it() -> None:
    program = made(Logarithm(), detect_anomaly=False)
    with pytest.raises(errors.NonFiniteError, match="detect_anomaly=True") as caught:
        program.train_step(program.init(), X)
    assert caught.value.place is None


def test_finite_steps_are_the_same_and_nothing_is_reported() -> None:
    plain, watched = (made(nn.Identity(), detect_anomaly=on) for on in (False, True))
    for transform in (lambda p: p, ft.donated):
        states = [transform(one).init() for one in (plain, watched)]
        for _ in range(3):
            steps = zip((plain, watched), states, strict=True)
            states = [transform(program).train_step(state, X)[0] for program, state in steps]
        assert tree.diff(*states) == []
    assert plain.recipe.describe() == watched.recipe.describe()  # a run may be resumed with it
    assert "detect_anomaly" in repr(watched)


def test_a_scale_of_fp16_that_is_too_large_is_no_anomaly() -> None:
    def large(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).float().sum() * 1e35

    program = made(nn.Identity(), large, precision="fp16")
    state = program.init()
    with warnings.catch_warnings(action="error"):
        state, _ = program.train_step(state, X)
    assert state.counters.skipped.item() == 1


def test_several_steps_in_one_call_name_the_step() -> None:
    batches = [X, X, X - 1000 * math.inf]
    for nonfinite in ("raise", "ignore"):
        program = ft.compiled(made(nn.Identity(), nonfinite=nonfinite), backend="eager")
        if nonfinite == "raise":
            with pytest.raises(errors.NonFiniteError, match=r"step 2: .* from the batch"):
                ft.steps(program, program.init(), batches)
        else:
            with pytest.warns(errors.AnomalyWarning, match=r"step 2: .* from the batch"):
                ft.steps(program, program.init(), batches)


def test_fit_ends_with_the_place_in_its_warning() -> None:
    data = ft.data.Batches(X, 4)
    with pytest.warns(errors.NonFiniteWarning, match=r"NaN is from log in the module '2\.1'"):
        run = ft.fit(made(Logarithm()), data, until="1 epoch", progress=False)
    assert run.reason == "nonfinite"


@pytest.mark.parametrize("compiled", [False, True])
def test_members_of_a_population_are_named(compiled: bool) -> None:
    program = ft.program(lambda: mlp(), squared, SGD, detect_anomaly=True)
    pop = ft.population(program, {"lr": [0.1, 0.1]}, seeds=[0, 1])
    pop = ft.compiled(pop, backend="eager") if compiled else pop
    state = pop.init()
    first = next(iter(state.params))
    x = torch.ones(3, state.params[first].shape[-1])
    values = state.params[first].clone()
    values[1] = math.nan
    broken = attrs.evolve(state, params={**state.params, first: values})
    found = place_of(pop, x, broken)
    assert "the loss of member 1 is nan" in found
    assert f"from the parameter {first!r}" in found
    values[0] = math.nan
    assert f"from the parameter {first!r}" in place_of(pop, x, broken)


def test_a_program_of_a_joint_one_names_its_own_module() -> None:
    def step(programs: Any, states: Any, batch: Any, rng: Any) -> Any:
        new, metrics = programs["critic"].train_step(states["critic"], batch)
        return {**states, "critic": new}, metrics

    programs = {"actor": made(nn.Identity()), "critic": made(Logarithm())}
    joint: Any = ft.joint(programs, step=step)
    assert "from log in the module '2.1'" in place_of(joint)


def test_phases_keep_it() -> None:
    program: Any = ft.phases(made(Logarithm()), [("2 steps", "0.weight"), (None, "*")])
    assert "from log in the module '2.1'" in place_of(program)


def test_programs_without_it_refuse_it() -> None:
    with pytest.raises(errors.ConfigurationError, match="detect_anomaly"):
        ft.differentiable(made(nn.Identity()), {"lr": torch.tensor(0.1)})
    with pytest.raises(errors.CallError, match="detect_anomaly"):
        ft.custom(lambda seed: {}, lambda tree, batch, rng: (tree, {}), detect_anomaly=True)  # type: ignore[call-arg]
    with pytest.raises(errors.ConfigurationError, match="detect_anomaly"):
        made(nn.Identity(), detect_anomaly="yes")


def rank_of_the_origin(shard: Any, nonfinite: Any) -> str:
    program = made(nn.Identity(), divided_for_large, nonfinite=nonfinite)
    sharded = ft.sharded(program, ft.Placement(shard=shard), parts=4)
    return place_of(sharded, torch.arange(32.0).reshape(8, 4))


def divided_for_large(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) / (batch < 25)).mean()


@pytest.mark.parametrize("shard", ["none", "all"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_every_rank_says_on_which_rank_it_was(shard: str, nonfinite: str) -> None:
    alone = rank_of_the_origin(shard, nonfinite)
    assert "infinity from div" in alone
    found = ranks.run(rank_of_the_origin, 2, shard, nonfinite)
    assert found == [f"{alone} on rank 1"] * 2
