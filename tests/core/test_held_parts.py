"""Modules that hold on to their parts where a copy or another binding does not reach them."""

from __future__ import annotations

import functools
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import ModelError

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Holder:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


class Holding(nn.Module):
    """Computes with a layer that a function gets from elsewhere, and with one of its own."""

    def __init__(self, hold: Any) -> None:
        super().__init__()
        self.plain, self.layer = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.get = [hold(self)]

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) + x @ self.get[0]().T


class Ignoring(nn.Linear):
    """Copies itself without a look at the memo."""

    def __deepcopy__(self, memo: Any) -> Ignoring:
        new = Ignoring(4, 4)
        new.load_state_dict(self.state_dict())
        return new


class Locked(nn.Linear):
    """Cannot be copied at all."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.lock = threading.Lock()


def closure(model: Any) -> Any:
    return lambda: model.layer.weight


def closure_in_list(model: Any) -> Any:
    layers = [model.layer]
    return lambda: layers[0].weight


def wrapped(model: Any) -> Any:
    inner = closure(model)
    return lambda: inner()


def default(model: Any) -> Any:
    return lambda layer=model.layer: layer.weight


def partial(model: Any) -> Any:
    return functools.partial(closure(model))


def reference(model: Any) -> Any:
    return Weak(model)


class Weak(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parent = weakref.ref(model)

    def forward(self) -> Any:
        parent: Any = self.parent()
        return parent.layer.weight


SHARED = pytest.mark.parametrize(
    "hold", [closure, closure_in_list, wrapped, default, partial, reference]
)


def squared(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def program(model: Any) -> ft.Program:
    return ft.program(model, squared, ft.optim.SGD(lr=0.1))


def assert_lent(made: ft.Program) -> None:
    """Lend a module after two steps: its values and gradients are the program's."""
    state = made.init()
    for _ in range(2):
        state, _ = made.train_step(state, X)
    expected = made.eval_step(state, X)["loss"]
    with made.module(state) as lent:
        torch.testing.assert_close(squared(lent, X).detach(), expected)
    with made.module(state, gradients=True) as lent:
        value = squared(lent, X)
        torch.testing.assert_close(value.detach(), expected)
        assert len(torch.autograd.grad(value, list(lent.parameters()))) == len(state.params)


@SHARED
def test_a_copy_would_use_the_original(hold: Any) -> None:
    torch.manual_seed(0)
    module = Holding(hold)
    expected = torch.autograd.grad(squared(module, X), list(module.parameters()))
    made = program(module)
    state, _ = made.train_step(made.init(), X)
    for (path, old), grad in zip(made.init().params.items(), expected, strict=True):
        torch.testing.assert_close(old - 0.1 * grad, state.params[path])
    assert made.eval_step(state, X)["loss"] != made.eval_step(made.init(), X)["loss"]
    with (
        pytest.raises(ModelError, match=r"refers to a part of the module.*pass a factory"),
        made.module(state),
    ):
        pass


@SHARED
def test_a_lent_module_of_a_factory_uses_its_own(hold: Any) -> None:
    assert_lent(program(lambda: Holding(hold)))


@pytest.mark.parametrize("make", [lambda: Ignoring(4, 4), Locked], ids=["memo", "lock"])
def test_a_lent_module_that_cannot_be_copied(make: Any) -> None:
    assert_lent(program(lambda: nn.Sequential(make(), nn.Linear(4, 4))))


def test_a_copy_that_ignores_the_memo() -> None:
    assert_lent(program(nn.Sequential(Ignoring(4, 4), nn.Linear(4, 4))))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.weight_norm])
def test_a_lent_module_with_computed_weights(norm: Any) -> None:
    assert_lent(program(lambda: nn.Sequential(norm(nn.Linear(4, 4)), nn.Linear(4, 4))))


@pytest.mark.parametrize("factory", [False, True])
def test_tensors_in_an_object_are_the_state_s(factory: bool) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return Holding(lambda model: Get(Holder(parts=({"weight": model.layer.weight},))))

    made, module = program(make if factory else make()), make()
    state = made.init()
    for _ in range(2):
        module.load_state_dict(state.params)
        expected = torch.autograd.grad(squared(module, X), list(module.parameters()))
        after, _ = made.train_step(state, X)
        for (path, old), grad in zip(state.params.items(), expected, strict=True):
            torch.testing.assert_close(old - 0.1 * grad, after.params[path])
        state = after
    assert_lent(made)


class Get:
    def __init__(self, holder: Any) -> None:
        self.holder = holder

    def __call__(self) -> Any:
        return self.holder.parts[0]["weight"]


@pytest.mark.parametrize(
    "hold",
    [
        lambda model: (lambda weight: lambda: weight)(model.layer.weight),
        lambda model: lambda weight=model.layer.weight: weight,
        lambda model: model.layer.weight.detach,
    ],
    ids=["closure", "default", "method"],
)
def test_functions_that_hold_a_tensor_are_refused(hold: Any) -> None:
    with pytest.raises(ModelError, match=r"holds on to 'layer\.weight'.*when it is called"):
        program(lambda: Holding(hold))
