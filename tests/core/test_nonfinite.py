"""Steps that are not finite: the host and the device give the same answer."""

from __future__ import annotations

import itertools
import math
from typing import Any

import attrs
import pytest
import torch
from torch import nn

import functrain as ft
from functrain import errors, tree
from functrain.core import nonfinite
from functrain.diagnosis.nonfinite_steps import raise_for

VALUES = [1.0, math.nan, math.inf, -math.inf]


def outputs(loss: float, norm: float) -> dict[str, Any]:
    return {"loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)}


@pytest.mark.row(10)
@pytest.mark.parametrize(("loss", "norm"), [*itertools.product(VALUES, VALUES)])
def test_a_step_is_finite_where_its_loss_and_its_norm_are(loss: float, norm: float) -> None:
    expected = (loss, norm) == (1.0, 1.0)
    found = nonfinite.finite(outputs(loss, norm))
    assert (found.dtype, found.item()) == (torch.bool, expected)
    assert nonfinite.finite_on_host(normed().recipe, outputs(loss, norm)) is expected


@pytest.mark.row(8)
@pytest.mark.parametrize(
    ("finite", "loss", "scale", "expected"),
    [
        (True, 1.0, None, True),
        (False, 1.0, None, False),
        (False, 1.0, 2.0, True),
        (False, 1.0, 1.0, False),  # a scale that cannot be lowered
        (False, 1.0, 0.5, False),
        (False, math.nan, 2.0, False),  # no scale makes this loss finite
    ],
)
def test_a_run_recovers_from_an_overflow_only(
    finite: bool, loss: float, scale: float | None, expected: bool
) -> None:
    scales = None if scale is None else {"scale": torch.tensor(scale)}
    found = {"finite": torch.tensor(finite), "loss": torch.tensor(loss)}
    assert nonfinite.is_recoverable(found, scales) is expected


def normed(**options: Any) -> ft.Program:
    """On the device "meta" its tensors have no values: who asks for one gets an error."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    return ft.program(module, loss, ft.optim.AdamW(lr=0.1), **options)


@pytest.mark.row(10)
@pytest.mark.parametrize("transform", [lambda program: program, ft.donated])
@pytest.mark.parametrize("policy", ["skip", "ignore"])
def test_a_step_that_may_go_on_never_waits_for_the_device(policy: str, transform: Any) -> None:
    program = transform(normed(nonfinite=policy, clip_norm=1.0, ema=0.9))
    state = program.init(device="meta")
    for number in (1, 2):
        state, metrics = program.train_step(state, torch.ones(4, 3, device="meta"))
        assert state.counters.step == number
        leaves = [*state.params.values(), state.counters.skipped, metrics["loss"]]
        assert all(leaf.is_meta for leaf in leaves)


@pytest.mark.row(10)
@pytest.mark.parametrize("transform", [lambda program: program, ft.donated])
def test_what_is_chosen_on_the_device_is_what_the_host_decides(
    transform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    program = normed(nonfinite="skip", clip_norm=1.0, ema=0.9)
    batches = [torch.randn(4, 3), torch.full((4, 3), math.nan), torch.randn(4, 3)]
    decided = chosen = program.init()
    for batch in batches:
        decided, _ = program.train_step(decided, batch)
    assert decided.counters.skipped.item() == 1
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)  # as it is on any other device
    for batch in batches:
        chosen, _ = transform(program).train_step(chosen, batch)
    assert tree.diff(decided, chosen) == []


@pytest.mark.row(10)
def test_a_step_that_may_raise_waits_for_any_device() -> None:
    program = normed(nonfinite="raise")
    with pytest.raises(errors.UnsupportedError, match="meta"):
        program.train_step(program.init(device="meta"), torch.ones(4, 3, device="meta"))


@pytest.mark.row(10)
def test_only_the_gradients_that_are_not_finite_are_named() -> None:
    bad = torch.tensor([0.0, math.inf])
    grads = {"good": torch.ones(2), "bad": bad, "worse": torch.tensor(math.nan)}
    with pytest.raises(errors.NonFiniteError, match=r"step 7: the loss is 2\.5 ") as caught:
        raise_for(7, outputs(2.5, math.nan), grads)
    assert (caught.value.step, caught.value.culprits) == (7, ["bad", "worse"])


def test_one_of_two_trees_is_chosen_leaf_by_leaf() -> None:
    shared = torch.zeros(2)
    new = {"a": torch.ones(2), "b": {"c": torch.ones(1), "n": 3, "d": shared}}
    old = {"a": torch.zeros(2), "b": {"c": torch.zeros(1), "n": 3, "d": shared}}
    for which, expected in ((True, new), (False, old)):
        found = nonfinite.chosen(torch.tensor(which), new, old)
        assert tree.diff(found, expected) == []
        assert found["b"]["d"] is shared


STEPS: dict[str, Any] = {
    "eager": lambda program: program,
    "donated": ft.donated,
    "compiled": lambda program: ft.compiled(program, backend="eager"),
}


def scaled(way: Any, **options: Any) -> ft.Program:
    """Its batches are inputs, a factor on the loss, and a gradient, which float16 may not hold."""

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        x, factor, gradient = batch
        out = model(x).float()
        return (out.square() + out * gradient.mean()).mean() * factor.mean()

    torch.manual_seed(0)
    recipe = {"precision": "fp16", "nonfinite": "skip", **options}
    program: ft.Program = way(ft.program(nn.Linear(4, 2), loss, ft.optim.SGD(lr=1e-4), **recipe))
    return program


OVERFLOW = 1e9


def batch_of(factor: float = 1.0, gradient: float = 0.0) -> tuple[torch.Tensor, ...]:
    return torch.ones(4, 4), torch.full((4,), factor), torch.full((4,), gradient)


@pytest.mark.parametrize("way", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("bad", [batch_of(math.nan), batch_of(math.inf)], ids=["nan", "inf"])
def test_a_loss_that_is_not_finite_leaves_the_scale(way: Any, bad: Any) -> None:
    program = scaled(way)
    state = program.init()
    for number in range(60):
        state, _ = program.train_step(state, bad if number % 3 else batch_of())
    assert state.loss_scale["scale"].item() == 2.0**16
    assert state.counters.skipped.item() == 40
    assert state.loss_scale["good_steps"].item() == 20


@pytest.mark.parametrize("way", STEPS.values(), ids=STEPS)
def test_gradients_that_are_not_finite_now_and_then_are_skipped(way: Any) -> None:
    program = scaled(way)
    state = program.init()
    for number in range(120):
        state, _ = program.train_step(state, batch_of(gradient=0.0 if number % 3 else OVERFLOW))
    assert state.loss_scale["scale"].item() == 1.0
    assert state.counters.skipped.item() == 40


@pytest.mark.parametrize("policy", ["skip", "ignore"])
@pytest.mark.parametrize("way", STEPS.values(), ids=STEPS)
def test_gradients_that_overflow_at_the_least_scale_end_in_an_error(way: Any, policy: Any) -> None:
    program = scaled(way, nonfinite=policy)
    state = program.init()
    for _ in range(16 + 19):
        state, _ = program.train_step(state, batch_of(gradient=OVERFLOW))
    assert state.loss_scale["scale"].item() == 1.0
    with pytest.raises(errors.NonFiniteError, match="loss scale"):
        program.train_step(state, batch_of(gradient=OVERFLOW))


def test_several_steps_at_once_end_in_the_same_error() -> None:
    program = scaled(STEPS["compiled"])
    with pytest.raises(errors.NonFiniteError, match="loss scale"):
        ft.steps(program, program.init(), [batch_of(gradient=OVERFLOW)] * 50)


@pytest.mark.parametrize("scale", [0.0, 2.0**-20])
def test_a_state_whose_scale_fell_below_the_least_recovers(scale: float) -> None:
    program = scaled(STEPS["eager"])
    state = program.init()
    state = attrs.evolve(state, loss_scale={**state.loss_scale, "scale": torch.tensor(scale)})
    for _ in range(3):
        state, _ = program.train_step(state, batch_of())
    assert state.loss_scale["scale"].item() == 1.0
    assert state.counters.skipped.item() <= 1
