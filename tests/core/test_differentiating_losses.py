"""Losses that differentiate by themselves are trained, evaluated and checked like any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.core.rng import scoped
from functrain.testing import check_loss, check_pure

X = torch.linspace(-1.0, 1.0, 24).reshape(8, 3)


class Net(nn.Module):
    """With a buffer that its forward writes to, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 1)
        self.drop = nn.Dropout(0.25)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.outer(self.drop(self.inner(x)).tanh())


class ForceField(Net):
    """Differentiates in its forward, as models of molecules do."""

    def forward(self, x: Tensor) -> Any:
        x = x.requires_grad_()
        energy = super().forward(x).sum()
        return energy, -torch.autograd.grad(energy, x, create_graph=self.training)[0]


def physics(model: nn.Module, x: Tensor) -> Tensor:
    """The residual of u'' = u."""
    x.requires_grad_()
    u = model(x)
    first = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), x, create_graph=True)[0]
    return (second - u).square().mean()


def penalised(model: nn.Module, x: Tensor) -> ft.Loss:
    mixed = (x * torch.rand(len(x), 1)).requires_grad_()
    slope = torch.autograd.grad(model(mixed).sum(), mixed, create_graph=True)[0]
    penalty = (slope.norm(dim=1) - 1).square().mean()
    return ft.Loss(model(x).mean() + penalty, metrics={"penalty": penalty})


def forces(model: nn.Module, x: Tensor) -> Tensor:
    energy, pull = model(x)
    return energy.square() / len(x) + (pull - 1).square().mean()


def adapted(model: nn.Module, x: Tensor) -> Tensor:
    """An inner step of gradient descent on one half, the loss on the other."""
    params = dict(model.named_parameters())
    inner = torch.func.functional_call(model, params, (x[::2],)).square().mean()
    grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)
    fast = {path: p - 0.1 * g for (path, p), g in zip(params.items(), grads, strict=True)}
    return torch.func.functional_call(model, fast, (x[1::2],)).square().mean()


def adapted_by_func(model: nn.Module, x: Tensor) -> Tensor:
    def inner(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        values = {**params, **buffers}
        return torch.func.functional_call(model, values, (x[::2],)).square().mean()

    params = dict(model.named_parameters())
    buffers = {path: buffer.clone() for path, buffer in model.named_buffers()}
    grads = torch.func.grad(inner)(params, buffers)
    fast = {path: p - 0.1 * grads[path] for path, p in params.items()}
    return torch.func.functional_call(model, fast, (x[1::2],)).square().mean()


def with_backward(model: nn.Module, x: Tensor) -> Tensor:
    x.requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
    return model(x.detach()).square().mean() + x.grad.square().mean()


def hooked(model: nn.Module, x: Tensor) -> Tensor:
    """Keeps a gradient by a hook, as Grad-CAM does."""
    seen: list[Tensor] = []
    features = model.inner(x)  # type: ignore[operator]
    features.register_hook(seen.append)
    torch.autograd.grad(model.outer(features).sum(), features, create_graph=True)  # type: ignore[operator]
    return model(x).square().mean() + seen[0].square().mean()


def retained(model: nn.Module, x: Tensor) -> Tensor:
    features = model.inner(x)  # type: ignore[operator]
    features.retain_grad()
    model.outer(features).sum().backward()  # type: ignore[operator]
    return model(x).square().mean() + features.grad.square().mean()


CASES: dict[str, tuple[type[nn.Module], Any]] = {
    "physics": (Net, physics),
    "gradient penalty": (Net, penalised),
    "forces": (ForceField, forces),
    "an inner step": (Net, adapted),
    "an inner step by torch.func": (Net, adapted_by_func),
    "a backward pass": (Net, with_backward),
    "a hook": (Net, hooked),
    "a gradient that is retained": (Net, retained),
}
EVERY = pytest.mark.parametrize("case", CASES)


def program(case: str, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    model, loss = CASES[case]
    return ft.program(model(), loss, ft.optim.SGD(lr=0.05), **options)


def plain_evaluation(case: str, state: ft.TrainState) -> float:
    model = CASES[case][0]()
    model.load_state_dict({**state.params, **state.buffers})
    model.eval()
    with scoped(state.rng.stream("evaluate", state.counters.step)):
        returned = CASES[case][1](model, X.clone())
    return float((returned.value if isinstance(returned, ft.Loss) else returned).detach())


@EVERY
class TestEvaluation:
    @pytest.mark.parametrize("weights", ["params", "ema"])
    def test_an_evaluation_is_the_plain_one(self, case: str, weights: str) -> None:
        own = program(case, ema=0.5)
        state, _ = own.train_step(own.init(), X)
        before, generators = ft.copy(state), torch.get_rng_state()
        metrics = own.eval_step(state, X, weights=weights)
        assert not any(metric.requires_grad for metric in metrics.values())
        assert ft.tree.equal(state, before)
        assert torch.equal(torch.get_rng_state(), generators)
        assert torch.is_grad_enabled()
        if weights == "params":
            assert float(metrics["loss"]) == pytest.approx(plain_evaluation(case, state), rel=1e-6)
        assert ft.tree.equal(metrics, own.eval_step(state, X, weights=weights))

    def test_a_run_evaluates_it(self, case: str) -> None:
        data = ft.data.Batches(X, 4, seed=0)
        run = ft.fit(program(case), data, until="2 epochs", eval_data=data, seed=0)
        assert len([row for row in run.history if "eval/loss" in row]) >= 1

    def test_within_no_grad(self, case: str) -> None:
        own = program(case)
        expected = own.eval_step(own.init(), X)
        with torch.no_grad():
            assert ft.tree.equal(own.eval_step(own.init(), X), expected)


@EVERY
def test_gradients_from_the_start_give_the_same_in_one_attempt(case: str) -> None:
    loss = CASES[case][1]
    calls: list[bool] = []

    def counted(model: nn.Module, x: Tensor) -> Any:
        calls.append(torch.is_grad_enabled())
        return loss(model, x)

    data = ft.data.Batches(X, len(X), shuffle=False)
    found = []
    for asked in (False, True):
        own = program(case, evaluate=counted, eval_gradients=asked, precision="bf16")
        state = own.init()
        calls.clear()
        found += [own.eval_step(state, X), ft.evaluate(own, state, data)]
        assert all(calls) is asked
        if asked:
            assert len(calls) == 2
    assert ft.tree.equal(found[0], found[2])
    assert found[1] == found[3]


def test_predictions_of_a_model_that_differentiates() -> None:
    own = program("forces", eval_gradients=True)
    state = own.init()
    energy, pull = ft.predict(own, state, ft.data.Batches(X, 4), join=False)[0]
    assert not energy.requires_grad
    with own.evaluating(state, gradients=True) as model:
        assert torch.equal(pull, model(X[:4].clone())[1])
    assert "eval_gradients" not in program("forces").recipe.describe()
    assert own.recipe.describe()["eval_gradients"] is True


def test_members_of_a_population_evaluate_with_gradients() -> None:
    def sloped(model: nn.Module, x: Tensor) -> Tensor:
        assert torch.is_grad_enabled()
        slope = torch.func.vmap(torch.func.grad(lambda one: model(one).sum()))
        return (slope(x) + model(x)).square().mean()

    own = ft.program(lambda: nn.Linear(3, 1), sloped, ft.optim.SGD(lr=0.1), eval_gradients=True)
    pop = ft.population(own, {"lr": [0.1, 0.2]})
    assert not pop.eval_step(pop.init(), X)["loss"].requires_grad


@EVERY
class TestTraining:
    def test_a_step_is_that_of_the_plain_loop(self, case: str) -> None:
        own = program(case)
        state, _ = own.train_step(own.init(), X)
        torch.manual_seed(0)
        model = CASES[case][0]()
        with scoped(own.init().rng.stream("step", 0)):
            returned = CASES[case][1](model, X.clone())
            (returned.value if isinstance(returned, ft.Loss) else returned).backward()
        torch.optim.SGD(model.parameters(), lr=0.05).step()
        for path, parameter in model.named_parameters():
            torch.testing.assert_close(state.params[path], parameter.detach(), msg=path)

    def test_it_is_pure_and_donated_steps_are_the_same(self, case: str) -> None:
        own = program(case)
        check_pure(own, own.init(), X)
        if case not in ("a backward pass", "a gradient that is retained"):
            check_loss(CASES[case][1], CASES[case][0](), X.clone())
        expected = own.train_step(own.init(), X)[0]
        for other in (ft.checked(own), ft.donated(own), ft.donated(ft.checked(own))):
            assert ft.tree.equal(other.train_step(other.init(), X)[0], expected)

    def test_micro_batches(self, case: str) -> None:
        own = program(case, accumulate=2)
        state, metrics = own.train_step(own.init(), X)
        assert torch.isfinite(metrics["loss"])
        assert not ft.tree.equal(state.params, own.init().params)

    def test_a_compiled_step_is_the_same(self, case: str) -> None:
        own = program(case)
        expected = own.train_step(own.init(), X)[0]
        made = ft.compiled(own, backend="eager")
        state, _ = made.train_step(made.init(), X)
        for path, value in expected.params.items():
            torch.testing.assert_close(state.params[path], value, msg=path)


def test_an_error_of_the_loss_itself_is_raised_unchanged() -> None:
    calls = []

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        calls.append(1)
        torch.ones(()).backward()
        return model(x).mean()

    own = ft.program(nn.Linear(3, 1), loss, ft.optim.SGD(lr=0.1))
    with pytest.raises(RuntimeError, match="does not require grad") as caught:
        own.eval_step(own.init(), X)
    assert len(calls) == 2
    assert caught.value.__context__ is None


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        calls.append(1)
        raise RuntimeError("something else")

    own = ft.program(nn.Linear(3, 1), loss, ft.optim.SGD(lr=0.1))
    with pytest.raises(RuntimeError, match="something else"):
        own.eval_step(own.init(), X)
    assert len(calls) == 1


def test_a_block_may_ask_for_gradients() -> None:
    own = program("physics", trainable="outer.*")
    with own.evaluating(own.init(), gradients=True) as model:
        found = torch.autograd.grad(model(X).sum(), list(model.outer.parameters()))  # type: ignore[union-attr]
        assert not model.inner.weight.requires_grad  # type: ignore[union-attr]
    assert all(grad.abs().sum() > 0 for grad in found)
    assert not own.init().params["outer.weight"].requires_grad
