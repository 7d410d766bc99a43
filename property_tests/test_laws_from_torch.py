"""Pure forms of torch's optimizers equal the classes, and so do functrain's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optimizers import Leaves, leaves
from trying import tried

import functrain as ft
from functrain import tree

SHAPES: dict[str, Any] = {"a": (3, 2), "b": (3,), "c": ()}
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "SGD": {"momentum": st.sampled_from([0.0, 0.9]), "weight_decay": st.sampled_from([0.0, 0.1])},
    "Adam": {"amsgrad": st.booleans(), "eps": st.sampled_from([1e-8, 1e-2])},
    "AdamW": {"weight_decay": st.sampled_from([0.0, 0.3]), "maximize": st.booleans()},
    "NAdam": {"decoupled_weight_decay": st.booleans(), "eps": st.sampled_from([1e-8, 1e-2])},
    "RAdam": {"weight_decay": st.sampled_from([0.0, 0.1])},
    "RMSprop": {"centered": st.booleans(), "momentum": st.sampled_from([0.0, 0.5])},
    "Adagrad": {"lr_decay": st.sampled_from([0.0, 0.1])},
    "Adadelta": {"rho": st.sampled_from([0.9, 0.5])},
    "Adamax": {"weight_decay": st.sampled_from([0.0, 0.1])},
    "ASGD": {"t0": st.sampled_from([1e6, 1.0])},
    "Rprop": {"etas": st.sampled_from([(0.5, 1.2), (0.3, 1.7)])},
}
chosen = st.sampled_from(sorted(OPTIONS)).flatmap(
    lambda name: st.tuples(st.just(name), st.fixed_dictionaries(OPTIONS[name]))
)
ruled = chosen.filter(lambda one: one[0] not in ("ASGD", "Rprop"))  # they are only torch's
dtypes = st.sampled_from([torch.float32, torch.float64])
rates = st.lists(st.sampled_from([0.0, 0.01, 0.3]), min_size=1, max_size=5)


class Theirs:
    """Torch's optimizer on copies of the same parameters."""

    def __init__(self, name: str, params: Leaves, **options: Any) -> None:
        self.own = {path: value.clone().requires_grad_() for path, value in params.items()}
        self.optimizer = getattr(torch.optim, name)(list(self.own.values()), **options)

    def step(self, grads: Leaves, rate: float) -> Leaves:
        for path, value in self.own.items():
            value.grad = grads[path].clone()
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        return {path: value.detach() for path, value in self.own.items()}


@pytest.mark.row(14)
@tried(100)
@given(chosen=chosen, dtype=dtypes, rates=rates, forgotten=st.integers(0, 5))
def test_it_equals_the_class_itself(
    chosen: tuple[str, dict[str, Any]], dtype: torch.dtype, rates: list[float], forgotten: int
) -> None:
    name, options = chosen
    params = leaves(SHAPES, 0, dtype)
    theirs = Theirs(name, params, lr=rates[0], **options)
    ours = ft.optim.from_torch(getattr(torch.optim, name), lr=0.1, **options)
    state = ours.init(params)
    for step, rate in enumerate(rates):
        grads = leaves(SHAPES, step + 1, dtype)
        if step == forgotten:  # another object continues
            ours = ft.optim.from_torch(getattr(torch.optim, name), lr=0.1, **options)
        params, state = ours.update(grads, state, params, rate)
        assert tree.diff(theirs.step(grads, rate), params) == []


@pytest.mark.row(13)
@pytest.mark.row(15)
@tried(150)
@given(chosen=ruled, rates=rates, kernel=st.booleans())
def test_every_option_counts_as_in_torch(
    chosen: tuple[str, dict[str, Any]], rates: list[float], kernel: bool
) -> None:
    name, options = chosen
    params = leaves(SHAPES, 0, torch.float64)
    theirs = Theirs(name, params, lr=rates[0], **options)
    ours = getattr(ft.optim, name)(lr=0.1, **options)
    state = ours.init(params)
    for step, rate in enumerate(rates):
        grads = leaves(SHAPES, step + 1, torch.float64)
        if kernel:
            ours.update_(grads, state, params, rate)
        else:
            params, state = ours.update(grads, state, params, rate)
        torch.testing.assert_close(theirs.step(grads, rate), params, rtol=1e-6, atol=1e-8)
