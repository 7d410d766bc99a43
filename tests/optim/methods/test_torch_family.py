"""NAdam, RMSprop, Adagrad, Adadelta and Adamax against torch.optim."""

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
from functrain.optim.methods.nadam import NAdam
from functrain.optim.methods.rmsprop import RMSprop

CLASSES: list[Any] = [NAdam, RMSprop, Adagrad, Adadelta, Adamax]
BITWISE = (RMSprop, Adadelta)
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
    options = {"weight_decay": 0.1}
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
def test_centered_rmsprop_stays_finite_with_a_constant_gradient(kernel: bool) -> None:
    params, grads = {"w": torch.ones(200)}, {"w": torch.linspace(0.1, 7.0, 200)}
    optimizer = RMSprop(centered=True, alpha=0.5)
    found, _ = run(optimizer, params, [grads] * 100, kernel)
    broken, _ = run_torch(RMSprop, params, [grads] * 100, centered=True, alpha=0.5)
    assert broken["w"].isnan().any()
    assert found["w"].isfinite().all()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("kernel", [False, True])
def test_a_tensor_lr_is_as_good_as_a_float(cls: Any, kernel: bool) -> None:
    params, grads = make(torch.float64)

    def tensor(step: int) -> Tensor:
        return torch.tensor(lr_of(step), dtype=torch.float64)

    expected, _ = run(cls(), params, grads[:9], kernel)
    found, _ = run(cls(), params, grads[:9], kernel, tensor)
    assert distance(found, expected) <= 1e-15
