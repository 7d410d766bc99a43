"""Every configuration in torch's own optimizer test database and more, over 100 steps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.optim import Optimizer, from_torch

pytestmark = pytest.mark.row(13)

STEPS = 100
# A step by closures, and one for gradients that a train step refuses by name.
REFUSED = {"LBFGS", "SparseAdam"}
OF_TORCH = ["ASGD", "Rprop"]  # only through from_torch
NOT_OURS = {*REFUSED, *OF_TORCH}
NAMES = sorted(
    name
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)
    if name not in {"Optimizer", *NOT_OURS}
)
COMPLEX = [name for name in NAMES if name not in ("Adafactor", "Muon")]
# Options that the database leaves out.
MORE: dict[str, list[dict[str, Any]]] = {
    "NAdam": [
        {"betas": (0.5, 0.9), "eps": 1e-3, "momentum_decay": 0.3},
        {"betas": (0.0, 0.0)},
        {"maximize": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "RMSprop": [
        {"alpha": 0.5, "eps": 1e-3},
        {"momentum": 0.9},
        {"momentum": 0.9, "centered": True},
        {"centered": True, "alpha": 0.9, "maximize": True},
    ],
    "Adagrad": [
        {"eps": 1e-3},
        {"initial_accumulator_value": 0.5, "lr_decay": 0.01, "maximize": True},
    ],
    "Adadelta": [{"eps": 1e-2, "rho": 0.5}, {"rho": 1.0}, {"rho": 0.0}],
    "Adamax": [{"betas": (0.5, 0.9), "eps": 1e-2}, {"betas": (0.0, 0.5), "maximize": True}],
}
BITWISE = (torch.optim.RMSprop, torch.optim.Adadelta)
each_name = pytest.mark.parametrize("name", NAMES)
each_share = pytest.mark.parametrize("share", ["one", "all"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

Leaves = dict[str, Tensor]


@functools.cache
def database() -> dict[str, Any]:
    """Return torch's database, whose import takes seconds that only these tests should pay."""
    pytest.importorskip("expecttest")
    from torch.testing._internal.common_optimizers import optim_db

    return {info.optim_cls.__name__: info for info in optim_db}


def configurations(name: str, share: str) -> list[tuple[type, dict[str, Any]]]:
    """Return the class of an optimizer with all of its configurations, or with the longest."""
    given = [case.kwargs for case in database()[name].optim_inputs_func(device="cpu")]
    given += MORE.get(name, [])
    chosen = given if share == "all" else [max(given, key=len)]
    return [(getattr(torch.optim, name), kwargs) for kwargs in chosen]


def form(cls: type) -> str | None:
    """Name the fastest of torch's own implementations."""
    supported = database()[cls.__name__].supported_impls
    return next((each for each in ("fused", "foreach") if each in supported), None)


def draw(cls: type, dtype: torch.dtype) -> tuple[Leaves, list[Leaves]]:
    shapes = {"weight": (5, 3), "wide": (2, 7)}
    if cls is not torch.optim.Muon:
        shapes |= {"bias": (3,), "scale": (), "kernel": (2, 3, 2, 2)}
    source = torch.Generator().manual_seed(0)

    def leaves() -> Leaves:
        return {
            path: torch.randn(shape, dtype=torch.float64, generator=source).to(dtype)
            for path, shape in shapes.items()
        }

    return leaves(), [leaves() for _ in range(STEPS)]


@contextlib.contextmanager
def precise_scalars() -> Iterator[None]:
    """Torch keeps NAdam's product of momenta in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run_torch(cls: Any, kwargs: dict[str, Any], params: Leaves, grads: list[Leaves]) -> Leaves:
    with precise_scalars():
        return _run_torch(cls, kwargs, params, grads)


def _run_torch(cls: Any, kwargs: dict[str, Any], params: Leaves, grads: list[Leaves]) -> Leaves:
    trained = {path: torch.nn.Parameter(param.clone()) for path, param in params.items()}
    optimizer = cls(trained.values(), **kwargs)
    (group,) = optimizer.param_groups
    lr = group["lr"]
    for step, grad in enumerate(grads):
        for path, param in trained.items():
            param.grad = grad[path].clone()
        group["lr"] = lr * factor(step)
        optimizer.step()
    return {path: param.detach() for path, param in trained.items()}


def factor(step: int) -> float:
    """Return a factor of the learning rate, which falls and is sometimes 0."""
    return 1 / (1 + step / 10) if step % 7 != 3 else 0.0


def lr_of(optimizer: Any, step: int) -> float:
    lr = optimizer.lr
    return (lr.item() if isinstance(lr, Tensor) else lr) * factor(step)


def run_rule(optimizer: Optimizer, params: Leaves, grads: list[Leaves]) -> Leaves:
    state = optimizer.init(params)
    for step, grad in enumerate(grads):
        params, state = optimizer.update(grad, state, params, lr_of(optimizer, step))
    return params


def run_kernel(optimizer: Optimizer, params: Leaves, grads: list[Leaves]) -> Leaves:
    params = {path: param.clone() for path, param in params.items()}
    state = optimizer.init(params)
    for step, grad in enumerate(grads):
        optimizer.update_(grad, state, params, lr_of(optimizer, step))
    return params


def doubled(leaves: Leaves) -> Leaves:
    return {path: leaf.double() for path, leaf in leaves.items()}


def relative_error(found: Leaves, expected: Leaves) -> float:
    def flat(leaves: Leaves) -> Tensor:
        return torch.cat([leaves[path].flatten() for path in expected])

    return float((flat(found) - flat(expected)).norm() / flat(expected).norm())


def ours(cls: type, kwargs: dict[str, Any]) -> Any:
    return getattr(ft.optim, cls.__name__)(**kwargs)


@pytest.mark.sweep("name", "dtype")
@each_name
@each_dtype
@each_share
def test_the_rule_equals_torch(name: str, dtype: torch.dtype, share: str) -> None:
    bound = 1e-6 if dtype == torch.float32 else 1e-12
    if name == "Muon":
        # Its iterations are in bfloat16, to which the last bit of a momentum may matter.
        bound = 2.0**-9
    for cls, kwargs in configurations(name, share):
        params, grads = draw(cls, dtype)
        expected = run_torch(cls, plainly(cls, kwargs), params, grads)
        found = run_rule(ours(cls, kwargs), params, grads)
        if relative_error(found, expected) > bound:
            # Torch's own rounding may be the larger one.
            exact = run_torch(cls, plainly(cls, kwargs), doubled(params), [*map(doubled, grads)])
            errors = [relative_error(each, exact) for each in (found, expected)]
            assert errors[0] < errors[1] < 5 * bound, kwargs


@pytest.mark.sweep("name", "dtype")
@each_name
@each_dtype
@each_share
def test_the_kernel_equals_the_fastest_form_of_torch(
    name: str, dtype: torch.dtype, share: str
) -> None:
    for cls, kwargs in configurations(name, share):
        params, grads = draw(cls, dtype)
        fast = form(cls)
        chosen = {**untensored(kwargs), **({fast: True} if fast else {})}
        expected = run_torch(cls, chosen, params, grads)
        bound = 1e-6 if dtype == torch.float32 else 1e-12
        bound = 0.0 if cls in BITWISE else bound
        found = run_kernel(ours(cls, kwargs), params, grads)
        assert relative_error(found, expected) <= bound, kwargs


@pytest.mark.sweep("name", "dtype")
@pytest.mark.parametrize("name", [*NAMES, *OF_TORCH])
@each_dtype
@each_share
def test_from_torch_equals_torch_in_every_bit(name: str, dtype: torch.dtype, share: str) -> None:
    for cls, kwargs in configurations(name, share):
        params, grads = draw(cls, dtype)
        with precise_scalars():
            found = run_rule(from_torch(cls, **kwargs), params, grads)
        expected = run_torch(cls, untensored(kwargs), params, grads)
        assert all(torch.equal(found[path], expected[path]) for path in params), kwargs


def untensored(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A tensor lr as the number it holds, which is what a step is given."""
    return {k: v.item() if isinstance(v, Tensor) else v for k, v in kwargs.items()}


def plainly(cls: type, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**untensored(kwargs), **({"foreach": False} if form(cls) else {})}


@pytest.mark.sweep("dtype")
@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_parameters_where_torch_supports_them(name: str, dtype: torch.dtype) -> None:
    bound = 1e-6 if dtype == torch.complex64 else 1e-12
    for case in database()[name].optim_inputs_func(device="cpu"):
        cls = getattr(torch.optim, name)
        params, grads = draw(cls, dtype)
        expected = run_torch(cls, plainly(cls, case.kwargs), params, grads)
        for run in (run_rule, run_kernel):
            found = run(ours(cls, case.kwargs), params, grads)
            assert relative_error(found, expected) < bound, case.kwargs


# Of lists of parameters and of torch's own implementations; here parameters come in a dict.
NOT_ASKED = (
    "invalid param type",
    "warn on a bare unordered set of params",  # from torch 2.15 on
    "a param group cannot have duplicate parameters",
    "duplicate parameters should not occur across param groups either",
    "all optimizer params should be with/without names",
    "all optimizer param groups should be with/without names.",
    "lr as Tensor doesn't work with foreach & not capturable",
    "betas must be either both floats or both Tensors",  # any mix is taken
    r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True",
)


def refused(name: str) -> list[Any]:
    errors = database()[name].optim_error_inputs_func(device="cpu", dtype=torch.float32)
    found = [each.optimizer_error_input for each in errors]
    return [each for each in found if each.desc not in NOT_ASKED]


@each_name
def test_what_torch_refuses_is_refused(name: str) -> None:
    cls = getattr(torch.optim, name)
    for given in refused(name):
        print(given.desc)
        if given.kwargs:
            with pytest.raises(ConfigurationError, match=f"^{name}: "):
                ours(cls, given.kwargs)
        else:
            params = {f"leaf{index}": param for index, param in enumerate(given.params)}
            with pytest.raises(ConfigurationError, match=f"^{name} is .*'leaf0'"):
                ours(cls, {}).init(params)


def test_how_many_cases_there_are() -> None:
    assert {*NAMES, *NOT_OURS} == database().keys()
    assert {*COMPLEX} == {name for name in NAMES if database()[name].supports_complex}
    assert sum(len(configurations(name, "all")) for name in NAMES) >= 82
    assert sum(len(refused(name)) for name in NAMES) >= 30


@pytest.mark.parametrize("name", sorted(NOT_OURS))
def test_what_is_not_there(name: str) -> None:
    assert not hasattr(ft.optim, name)
