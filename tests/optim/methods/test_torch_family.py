"""NAdam, RMSprop, Adagrad, Adadelta, Adamax, Rprop and ASGD against torch.optim."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from functrain.core.optimizer import Optimizer
from functrain.optim.methods.adadelta import Adadelta
from functrain.optim.methods.adagrad import Adagrad
from functrain.optim.methods.adamax import Adamax
from functrain.optim.methods.asgd import ASGD
from functrain.optim.methods.nadam import NAdam
from functrain.optim.methods.rmsprop import RMSprop
from functrain.optim.methods.rprop import Rprop

CLASSES: list[Any] = [NAdam, RMSprop, Adagrad, Adadelta, Adamax, Rprop, ASGD]
BITWISE = (RMSprop, Adadelta, Rprop)
STEPS = 100
SHAPES = {"weight": (5, 3), "bias": (3,), "scale": (), "kernel": (2, 3, 2, 2)}


def lr_of(step: int) -> float:
    return 0.05 / (1 + step / 10) if step % 7 != 3 else 0.0


def make(dtype: torch.dtype) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Return parameters and gradients that are the same numbers in every dtype."""
    source = torch.Generator().manual_seed(0)

    def draw() -> dict[str, Tensor]:
        return {
            path: torch.randn(shape, generator=source).bfloat16().to(dtype)
            for path, shape in SHAPES.items()
        }

    return draw(), [draw() for _ in range(STEPS)]


@contextmanager
def scalars_in(dtype: torch.dtype) -> Iterator[None]:
    """Make torch.optim keep its scalars in float64 too, which it does by the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype in (torch.float64, torch.complex128) else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run_torch(
    cls: Any,
    params: dict[str, Tensor],
    grads: list[dict[str, Tensor]],
    rate: Callable[[int], float] = lr_of,
    **options: Any,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the parameters, and the state by path; a gradient may miss."""
    dtype = next(iter(params.values())).dtype
    trained = {path: torch.nn.Parameter(param.clone()) for path, param in params.items()}
    with scalars_in(dtype):
        optimizer = getattr(torch.optim, cls.__name__)(trained.values(), lr=rate(0), **options)
        for step, grad in enumerate(grads):
            for path, param in trained.items():
                param.grad = grad[path].clone() if path in grad else None
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.step()
    state = {path: optimizer.state[param] for path, param in trained.items()}
    return {path: param.detach() for path, param in trained.items()}, state


def run(
    optimizer: Optimizer,
    params: dict[str, Tensor],
    grads: list[dict[str, Tensor]],
    kernel: bool,
    rate: Callable[[int], Any] = lr_of,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    params = {path: param.clone() for path, param in params.items()}
    state = optimizer.init(params)
    for step, grad in enumerate(grads):
        if kernel:
            optimizer.update_(grad, state, params, rate(step))
        else:
            params, state = optimizer.update(grad, state, params, rate(step))
    return params, state


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the norm of the difference of all leaves together, over that of the expected ones.

    An element that has come near 0 keeps the rounding errors of its way there, so that its own
    relative error says nothing.
    """
    pairs = [(found[path], expected[path]) for path in expected]
    errors = sum(float((one - other).abs().square().sum()) for one, other in pairs)
    size = sum(float(other.abs().square().sum()) for _, other in pairs)
    return math.sqrt(errors / size) if errors else 0.0


@pytest.mark.parametrize("cls", CLASSES)
def test_bfloat16_kernel_is_as_near_to_float64_as_the_foreach_form(cls: Any) -> None:
    options = {} if cls is Rprop else {"weight_decay": 0.1}
    params, grads = make(torch.bfloat16)
    expected, _ = run_torch(cls, *make(torch.float64), foreach=False, **options)
    theirs, _ = run_torch(cls, params, grads, foreach=True, **options)
    found, _ = run(cls(**options), params, grads, kernel=True)

    if cls in BITWISE:
        assert distance(found, theirs) == 0
    # By how much the same operations in another order differ is a matter of luck.
    assert distance(found, expected) <= 1.2 * distance(theirs, expected)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "maximize": True, "lr_decay": 0.1}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_adagrad_is_bitwise_the_fused_form(options: dict[str, Any], dtype: torch.dtype) -> None:
    params, grads = make(dtype)
    expected, _ = run_torch(Adagrad, params, grads, fused=True, **options)
    found, _ = run(Adagrad(**options), params, grads, kernel=True)
    assert all(torch.equal(found[path], expected[path]) for path in params)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("kernel", [False, True])
def test_a_late_leaf_moves(cls: Any, kernel: bool) -> None:
    params, grads = make(torch.float64)
    late = [{path: g for path, g in grad.items() if path != "bias"} for grad in grads[:4]]
    found, _ = run(cls(), params, [*late, *grads[4:8]], kernel)
    still, _ = run(cls(), params, late, kernel)
    assert torch.equal(still["bias"], params["bias"])
    assert (found["bias"] - params["bias"]).abs().min() > 1e-5
    assert found["bias"].isfinite().all()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("kernel", [False, True])
def test_a_late_leaf_is_as_in_torch(cls: Any, kernel: bool) -> None:
    params, grads = make(torch.float64)
    late = [{path: g for path, g in grad.items() if path != "bias"} for grad in grads[:5]]
    grads = [*late, *grads[5:20]]
    expected, _ = run_torch(cls, params, grads, foreach=False)
    found, _ = run(cls(), params, grads, kernel)
    assert distance(found, expected) <= 1e-12


@pytest.mark.parametrize("kernel", [False, True])
def test_rprop_begun_with_a_zero_lr_takes_the_smallest_step_as_in_torch(kernel: bool) -> None:
    params, grads = make(torch.float64)
    options = {"step_sizes": (1e-3, 1.0)}

    def warmup(step: int) -> float:
        return 0.1 * step

    expected, _ = run_torch(Rprop, params, grads[:9], warmup, foreach=False, **options)
    found, _ = run(Rprop(step_sizes=(1e-3, 1.0)), params, grads[:9], kernel, warmup)
    assert distance(found, expected) <= 1e-12
    assert not torch.equal(found["bias"], params["bias"])


@pytest.mark.parametrize("kernel", [False, True])
def test_rprop_knows_a_turn_of_tiny_gradients(kernel: bool) -> None:
    grads = [{"w": torch.tensor([1e-30])}, {"w": torch.tensor([-1e-30])}]
    _, state = run(Rprop(lr=0.1), {"w": torch.ones(1)}, grads, kernel)
    assert state["step_size"]["w"].item() == pytest.approx(0.025)


@pytest.mark.parametrize("kernel", [False, True])
def test_centered_rmsprop_stays_finite_with_a_constant_gradient(kernel: bool) -> None:
    params, grads = {"w": torch.ones(200)}, {"w": torch.linspace(0.1, 7.0, 200)}
    optimizer = RMSprop(centered=True, alpha=0.5)
    found, _ = run(optimizer, params, [grads] * 100, kernel)
    broken, _ = run_torch(RMSprop, params, [grads] * 100, centered=True, alpha=0.5)
    assert broken["w"].isnan().any()
    assert found["w"].isfinite().all()


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("count", [1, 4, 5, 6, 12])
def test_asgd_evaluates_the_mean_of_the_parameters_after_t0(kernel: bool, count: int) -> None:
    params, grads = make(torch.float64)
    asgd = ASGD(t0=3, lambd=0.01)
    walk = [run(asgd, params, grads[:end], kernel)[0] for end in range(1, count + 1)]
    final, state = run(asgd, params, grads[:count], kernel)
    averages = asgd.eval_params(state, final)
    for path in params:
        expected = torch.stack([each[path] for each in walk[min(count, 5) - 1 :]]).mean(0)
        torch.testing.assert_close(averages[path], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("kernel", [False, True])
def test_a_tensor_lr_is_as_good_as_a_float(cls: Any, kernel: bool) -> None:
    params, grads = make(torch.float64)

    def tensor(step: int) -> Tensor:
        return torch.tensor(lr_of(step), dtype=torch.float64)

    expected, _ = run(cls(), params, grads[:9], kernel)
    found, _ = run(cls(), params, grads[:9], kernel, tensor)
    assert distance(found, expected) <= 1e-15


@pytest.mark.parametrize("kernel", [False, True])
def test_asgd_averages_a_late_leaf_from_its_own_first_update(kernel: bool) -> None:
    start = {path: torch.full((2,), 4.0, dtype=torch.float64) for path in ("early", "late")}
    ones = {path: torch.ones_like(leaf) for path, leaf in start.items()}
    grads = [{"early": ones["early"]}] * 5 + [ones] * 4
    expected, theirs = run_torch(ASGD, start, grads, t0=1, foreach=False)
    params, state = run(ASGD(t0=1), start, grads, kernel)
    for path in start:
        torch.testing.assert_close(params[path], expected[path], rtol=1e-12, atol=0)
        torch.testing.assert_close(state["ax"][path], theirs[path]["ax"], rtol=1e-12, atol=0)
