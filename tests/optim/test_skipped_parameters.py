"""Parameters without a gradient in some updates: skipped and counted as torch.optim does."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from functrain import optim

STEPS = 24
SHAPES = {"always": (4, 3), "dropped": (7, 9), "late": (3, 5), "rare": (4, 3), "never": (2, 2)}
Leaves = dict[str, Tensor]

CASES: list[tuple[Any, dict[str, Any]]] = [
    (optim.SGD, {"weight_decay": 0.1}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (optim.SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (optim.Adam, {"weight_decay": 0.1}),
    (optim.Adam, {"amsgrad": True}),
    (optim.AdamW, {"weight_decay": 0.1}),
    (optim.AdamW, {"betas": (0.5, 0.9), "amsgrad": True, "maximize": True}),
    (optim.NAdam, {"weight_decay": 0.1}),
    (optim.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (optim.RAdam, {"weight_decay": 0.1}),
    (optim.RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (optim.RMSprop, {"weight_decay": 0.1}),
    (optim.RMSprop, {"momentum": 0.9, "centered": True}),
    (optim.Adagrad, {"weight_decay": 0.1}),
    (optim.Adagrad, {"lr_decay": 0.1}),
    (optim.Adadelta, {"weight_decay": 0.1}),
    (optim.Adamax, {"weight_decay": 0.1}),
    (optim.Adafactor, {"weight_decay": 0.1}),
    (optim.Muon, {"weight_decay": 0.1, "ns_dtype": "float32"}),
    (optim.Lion, {"weight_decay": 0.1}),
    (optim.LAMB, {"weight_decay": 0.1}),
]
# torch's form that the kernel is bit for bit.
FORMS: dict[Any, dict[str, Any]] = {
    optim.SGD: {"fused": True},
    optim.Adam: {"fused": True},
    optim.AdamW: {"fused": True},
    optim.RAdam: {"foreach": True},
    optim.RMSprop: {"foreach": True},
    optim.Adadelta: {"foreach": True},
}
every_case = pytest.mark.parametrize(("cls", "options"), CASES, ids=repr)
both_forms = pytest.mark.parametrize("kernel", [False, True], ids=["rule", "kernel"])


def lr_of(step: int) -> float:
    return 0.05 / (1 + step / 10)


def draw(seed: int, dtype: torch.dtype = torch.float32) -> Leaves:
    source = torch.Generator().manual_seed(seed)
    return {path: torch.randn(s, generator=source).to(dtype) for path, s in SHAPES.items()}


def gradients(dtype: torch.dtype = torch.float32) -> list[Leaves]:
    """Gradients of every update, some missing at random, until a step, or always."""
    chance, found = random.Random(0), []
    for step in range(STEPS):
        odds = {"always": 1.0, "dropped": 0.6, "late": float(step >= 5), "rare": 0.2, "never": 0.0}
        grads = draw(step + 1, dtype)
        found.append({path: grads[path] for path in grads if chance.random() < odds[path]})
    return found


def run(optimizer: optim.Optimizer, params: Leaves, grads: list[Leaves], kernel: bool) -> Any:
    params = copy.deepcopy(params)
    state = optimizer.init(params)
    for step, given in enumerate(grads):
        if kernel:
            optimizer.update_(given, state, params, lr_of(step))
        else:
            params, state = optimizer.update(given, state, params, lr_of(step))
    return params, state


def run_torch(cls: Any, options: dict[str, Any], params: Leaves, grads: list[Leaves]) -> Leaves:
    trained = {path: torch.nn.Parameter(param.clone()) for path, param in params.items()}
    # Fused SGD of torch fails on parameters of one group of which only some have a momentum buffer.
    apart = cls is torch.optim.SGD and "fused" in options
    parts = [[param] for param in trained.values()] if apart else [list(trained.values())]
    optimizer = cls([{"params": part} for part in parts], lr=0.05, **options)
    for step, given in enumerate(grads):
        for path, param in trained.items():
            param.grad = given[path].clone() if path in given else None
        for group in optimizer.param_groups:
            group["lr"] = lr_of(step)
        optimizer.step()
    return {path: param.detach() for path, param in trained.items()}


@pytest.mark.row(13)
@pytest.mark.sweep("cls", "kernel")
@every_case
@both_forms
def test_as_in_torch(cls: Any, options: dict[str, Any], kernel: bool) -> None:
    theirs = getattr(torch.optim, cls.__name__, None)
    if theirs is None or cls is optim.Muon:
        pytest.skip("the law below holds it")
    bitwise = kernel and cls in FORMS
    dtype = torch.float32 if bitwise else torch.float64
    params, grads = draw(0, dtype), gradients(dtype)
    form = FORMS[cls] if bitwise else {"foreach": False}
    expected = run_torch(theirs, {**form, **options}, params, grads)
    found, _ = run(cls(lr=0.05, **options), params, grads, kernel)
    for path in params:
        if bitwise:
            assert torch.equal(found[path], expected[path]), path
        else:
            # torch keeps mu_product and eta in float32.
            bound = 1e-6 if cls is optim.NAdam else 1e-12
            torch.testing.assert_close(found[path], expected[path], rtol=bound, atol=bound)


@every_case
@both_forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_parameter_is_trained_as_it_would_be_alone(
    cls: Any, options: dict[str, Any], kernel: bool, dtype: torch.dtype
) -> None:
    params, grads = draw(0, dtype), gradients(dtype)
    optimizer = cls(lr=0.05, **options)
    found, _ = run(optimizer, params, grads, kernel)
    for path, param in params.items():
        alone, state = {path: param.clone()}, optimizer.init({path: param})
        for step, given in enumerate(grads):
            if path in given and kernel:
                optimizer.update_({path: given[path]}, state, alone, lr_of(step))
            elif path in given:
                alone, state = optimizer.update({path: given[path]}, state, alone, lr_of(step))
        assert torch.equal(found[path], alone[path]), path
    assert torch.equal(found["never"], params["never"])


@pytest.mark.parametrize("cls", [optim.ScheduleFreeSGD, optim.ScheduleFreeAdamW])
@both_forms
def test_schedule_free_has_one_count_a_group_as_its_authors_have(cls: Any, kernel: bool) -> None:
    package = pytest.importorskip("schedulefree")
    name = {optim.ScheduleFreeSGD: "SGDScheduleFree", optim.ScheduleFreeAdamW: "AdamWScheduleFree"}[
        cls
    ]
    params, grads = draw(0, torch.float64), gradients(torch.float64)
    trained = {path: torch.nn.Parameter(param.clone()) for path, param in params.items()}
    theirs = getattr(package, name)(trained.values(), lr=0.05, weight_decay=0.1, foreach=False)
    theirs.train()
    for step, given in enumerate(grads):
        for path, param in trained.items():
            param.grad = given[path].clone() if path in given else None
        theirs.param_groups[0]["lr"] = lr_of(step)
        theirs.step()
    found, _ = run(cls(lr=0.05, weight_decay=0.1), params, grads, kernel)
    for path, param in trained.items():
        torch.testing.assert_close(found[path], param.detach(), rtol=1e-9, atol=1e-9)


def as_bytes(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.numpy().tobytes()
    return {name: as_bytes(value) for name, value in tree.items()}


@every_case
def test_where_all_gradients_come_the_state_has_one_count(
    cls: Any, options: dict[str, Any]
) -> None:
    params = draw(0)
    grads = [draw(step + 1) for step in range(3)]
    for kernel in (False, True):
        _, state = run(cls(**options), params, grads, kernel)
        assert "per_parameter" not in state
        assert state["step"].item() == 3


@both_forms
def test_the_state_counts_what_was_skipped(kernel: bool) -> None:
    params, grads = draw(0), gradients()
    _, state = run(optim.Adam(), params, grads, kernel)
    counts = {path: count.item() for path, count in state["per_parameter"]["step"].items()}
    assert counts == {
        path: sum(path in given for given in grads) for path in SHAPES if path != "always"
    }
    assert state["step"].item() == STEPS


@every_case
def test_an_update_that_skips_is_pure(cls: Any, options: dict[str, Any]) -> None:
    optimizer, grads = cls(**options), gradients()
    params, state = run(optimizer, draw(0), grads[:4], kernel=False)
    before = as_bytes({"params": params, "state": state, "grads": grads[4]})
    optimizer.update(grads[4], state, params, 0.1)
    assert as_bytes({"params": params, "state": state, "grads": grads[4]}) == before


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda inner: optim.groups(
            [("always", optim.SGD(0.1)), (["dropped", "late"], inner), ("*", inner)]
        ),
        lambda inner: optim.Float32State(inner, master_weights=True),
        lambda inner: optim.Lookahead(inner, sync_period=10**6),
    ],
    ids=["groups", "Float32State", "Lookahead"],
)
@both_forms
def test_inside_of_groups_and_wrappers(wrapped: Any, kernel: bool) -> None:
    params, grads = draw(0), gradients()
    optimizer = wrapped(optim.NAdam())
    full = {path: lr_of(0) for path in "012"} if hasattr(optimizer, "members") else lr_of(0)
    found, state = copy.deepcopy(params), optimizer.init(params)
    alone, own = copy.deepcopy(params), optim.NAdam().init(params)
    for given in grads:
        if kernel:
            optimizer.update_(given, state, found, full)
            optim.NAdam().update_(given, own, alone, lr_of(0))
        else:
            found, state = optimizer.update(given, state, found, full)
            alone, own = optim.NAdam().update(given, own, alone, lr_of(0))
    for path in params:
        if not (path == "always" and hasattr(optimizer, "members")):
            torch.testing.assert_close(found[path], alone[path], rtol=1e-6, atol=1e-6)


@both_forms
def test_lookahead_resets_the_counts_of_all(kernel: bool) -> None:
    optimizer = optim.Lookahead(optim.Adam(), sync_period=2, slow_step_size=1.0, reset_state=True)
    params = {"a": torch.zeros(2), "b": torch.zeros(2)}
    one = torch.ones(2)
    _, state = run(optimizer, params, [{"a": one}, {"a": one}], kernel)
    assert state["optimizer"]["step"].item() == 0
    assert all(count == 0 for count in state["optimizer"]["per_parameter"]["step"].values())
    _, state = run(optimizer, params, [{"a": one}, {"a": one}, {"a": one, "b": one}], kernel)
    assert state["optimizer"]["per_parameter"]["step"]["b"].item() == 1


def test_a_rule_that_skips_under_vmap() -> None:
    params, grads = draw(0, torch.float64), gradients(torch.float64)
    lrs = torch.tensor([0.01, 0.1], dtype=torch.float64)

    def member(lr: Tensor) -> Leaves:
        own, state = params, optim.NAdam().init(params)
        for given in grads:
            own, state = optim.NAdam().update(given, state, own, lr)
        return own

    found = torch.func.vmap(member)(lrs)
    for index, lr in enumerate(lrs):
        torch.testing.assert_close({p: v[index] for p, v in found.items()}, member(lr))
