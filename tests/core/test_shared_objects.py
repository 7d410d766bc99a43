"""Objects that a module shares with its loss or hooks, and what a forward leaves behind."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft

PRACTICE = pytest.mark.xfail(strict=True, reason="What practitioners' scripts need")
X, Y = torch.randn(2, 24, 6, generator=torch.Generator().manual_seed(0)).unbind()
Y = Y[:, :3].contiguous()


def distance(model: Any, batch: Any) -> Tensor:
    value: Tensor = (model(batch[0]) - batch[1]).square().mean()
    return value


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


class Recorder:
    out: Any = None

    def hook(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.out = out


def put(store: list[Any], module: nn.Module, args: Any, out: Tensor) -> None:
    store[:] = [out]


@pytest.mark.parametrize("kind", ["bound method", "partial"])
@pytest.mark.parametrize("looked", [True, False], ids=["looked at", "new"])
def test_the_loss_reads_what_a_hook_kept_in_this_step(kind: str, looked: bool) -> None:
    net, recorder, kept = layers(), Recorder(), list[Any]()
    bound = kind == "bound method"
    plain = copy.deepcopy(net)
    net[0].register_forward_hook(recorder.hook if bound else functools.partial(put, kept))
    if looked:
        with torch.no_grad():
            net(X)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        value = distance(model, batch)
        feature: Tensor = recorder.out if bound else kept[0]
        return value + 5 * feature.square().mean()

    program = ft.program(net, loss, ft.optim.SGD(lr=0.05))
    _, metrics = program.train_step(program.init(), (X, Y))
    expected = distance(plain, (X, Y)) + 5 * plain[0](X).square().mean()
    torch.testing.assert_close(metrics["loss"], expected.detach())
    assert metrics["grad_norm"] > 0
    state, _ = program.train_step(program.init(), (X, Y))
    expected.backward()  # type: ignore[no-untyped-call]
    assert plain[0].weight.grad is not None
    torch.testing.assert_close(
        state.params["0.weight"], plain[0].weight.detach() - 0.05 * plain[0].weight.grad
    )


class Caching(nn.Module):
    """The hook of the backbone writes to a dict that is also an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 3)
        kept: dict[str, Any] = {}
        self.backbone.kept = kept
        self.backbone[1].register_forward_hook(lambda m, args, out: kept.__setitem__("a", out))

    def forward(self, x: Tensor) -> Any:
        self.backbone(x)
        return self.head(self.backbone.kept["a"])


def test_a_backbone_behind_a_hook_is_trained() -> None:
    net = Caching()
    with torch.no_grad():
        net(X)
    program = ft.program(net, distance, ft.optim.SGD(lr=0.5))
    start = program.init()
    state, _ = program.train_step(start, (X, Y))
    assert not state.params["backbone.0.weight"].equal(start.params["backbone.0.weight"])


def test_a_lent_module_answers_for_its_own_input() -> None:
    program = ft.program(Caching, distance, ft.optim.SGD(lr=0.5))
    state, _ = program.train_step(program.init(), (X, Y))
    with torch.no_grad(), program.module(state) as lent:
        assert len(lent(X[:5])) == 5


class Recurrent(nn.Module):
    """Its hidden state is detached where it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out, self.h = nn.GRUCell(6, 8), nn.Linear(8, 3), None

    def forward(self, x: Tensor) -> Any:
        self.h = self.cell(x, None if self.h is None else self.h.detach())
        return self.out(self.h)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_hidden_state_that_is_dropped_is_warned_about(compiled: bool) -> None:
    program = ft.program(Recurrent(), distance, ft.optim.SGD(lr=0.2))
    made = ft.compiled(program, backend="eager") if compiled else program
    state = made.init()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            state, _ = made.train_step(state, (X, Y))
    assert any(issubclass(one.category, ft.errors.ModuleStateWarning) for one in seen)


WAYS: dict[str, Callable[[ft.Program], ft.Program]] = {
    "eager": lambda program: program,
    "donated": ft.donated,
    "compiled": lambda program: ft.compiled(program, backend="eager"),
}


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({"accumulate": 2}, "eager"),
        ({"accumulate": 2}, "donated"),
        ({"precision": "fp16"}, "eager"),
    ],
    ids=str,
)
def test_a_loss_that_calls_backward_keeps_those_gradients(options: Any, way: str) -> None:
    net = nn.ModuleDict({"local": nn.Linear(6, 3), "main": nn.Linear(6, 3)})

    def loss(model: Any, batch: Any) -> Tensor:
        distance(model["local"], batch).float().backward()  # type: ignore[no-untyped-call]
        return distance(model["main"], batch).float()

    plain = copy.deepcopy(net)
    loss(plain, (X, Y))
    program = WAYS[way](ft.program(net, loss, ft.optim.SGD(lr=0.1), **options))
    start = program.init()
    state, _ = program.train_step(program.init(), (X, Y))
    change = start.params["local.weight"] - state.params["local.weight"]
    torch.testing.assert_close(change, 0.1 * plain["local"].weight.grad, rtol=0.02, atol=1e-4)


@PRACTICE
def test_batch_norm_of_a_lent_module_is_updated() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    discriminator = ft.program(net, lambda m, b: m(b).square().mean(), ft.optim.SGD(lr=0.1))
    loss = lambda m, b: b[1](m(b[0])).square().mean()  # noqa: E731
    generator = ft.program(nn.Linear(6, 6), loss, ft.optim.SGD(lr=0.1))

    def step(programs: Any, states: Any, batch: Any, rng: Any) -> Any:
        d, _ = programs["d"].train_step(states["d"], batch)
        with programs["d"].module(d, training=True) as lent:
            g, metrics = programs["g"].train_step(states["g"], (batch, lent))
        return {"d": d, "g": g}, metrics

    joint = ft.joint({"d": discriminator, "g": generator}, step=step)
    run = ft.fit(joint, [X], until="3 steps", progress=False)
    assert run.state.d.buffers["1.num_batches_tracked"] == 6


@PRACTICE
def test_a_sum_over_micro_batches_is_a_sum() -> None:
    """ft.Loss will know that its value is a sum."""
    made: Any = ft.Loss
    loss = lambda model, batch: made(model(batch).square().sum(), reduction="sum")  # noqa: E731
    one, two = (
        ft.program(nn.Linear(6, 1), loss, ft.optim.SGD(lr=0.01), accumulate=k) for k in (1, 2)
    )
    state = one.init()
    whole = one.train_step(state, X)[1]["loss"]
    torch.testing.assert_close(two.train_step(state, X)[1]["loss"], whole)
