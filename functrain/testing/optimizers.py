"""Check that an optimizer is pure, its two forms agree, and its state is complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from functrain.core import learning_rate
from functrain.core.optimizer import OptimizerState, Params
from functrain.core.rng import scoped
from functrain.optim import Optimizer
from functrain.testing.observed_calls import (
    refuse,
    repeat_call,
    repeat_twice,
    shared,
    snapshots,
    watch_call,
)
from functrain.testing.snapshots import changes
from functrain.tree.nodes import copy

_STEPS = 3
_SEED = 7
# Relative and absolute tolerance between rule and kernel after a few updates.
_BOUNDS = {torch.float64: 1e-9, torch.float32: 5e-4, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def check_optimizer(optimizer: Optimizer, params: Params) -> None:
    """Check ``init``, ``update`` and ``update_`` with random gradients, over three updates.

    * ``init`` and ``update`` do not change their inputs, share no memory with them that a later
      update writes to, and return the same bytes each time, independent of the global generators
      (torch's is seeded in each step);
    * ``update_`` changes neither gradients nor the optimizer, and returns the result of ``update``
      up to rounding;
    * the state is complete: continuing from a copy gives the same updates.

    Args:
        optimizer: from ``functrain.optim``, ``from_torch``, or any other of that protocol.
        params: floating-point tensors by path; not changed.

    Raises:
        ImpurityError: with one line per finding.

    Example:
        >>> import functrain as ft
        >>> check_optimizer(ft.optim.AdamW(lr=0.1), {"w": torch.zeros(3)})
    """
    optimizer = optimizer.bind(params)
    name = type(optimizer).__name__
    _check_init(optimizer, params)
    rule = [(copy(params), copy(optimizer.init(params)))]
    kernel = list(rule)
    for step in range(_STEPS):
        rule.append(_checked(optimizer, "update", _updated, *rule[-1], step))
        kernel.append(_checked(optimizer, "update_", _updated_in_place, *kernel[-1], step))
    refuse(f"{name}.update_", _apart(rule[-1][0], kernel[-1][0]))
    for start in range(_STEPS):
        refuse(f"{name}'s state", _incomplete(optimizer, rule, start))


def gradients(params: Params, step: int) -> Params:
    """Return normal random gradients, a function of the step."""
    generator = torch.Generator().manual_seed(step)
    return {
        path: torch.randn(param.shape, generator=generator).to(param)
        for path, param in params.items()
    }


def _rate(optimizer: Optimizer, step: int) -> Any:
    schedules = learning_rate.schedules(optimizer)
    state = learning_rate.with_total_steps(schedules, learning_rate.init(schedules), 100)
    return learning_rate.rate(schedules, state, step)


def _check_init(optimizer: Optimizer, params: Params) -> None:
    def call() -> dict[str, Any]:
        return {"state": optimizer.init(params)}

    watched = {"params": params, "optimizer": optimizer}
    first = watch_call(call, watched)
    findings = first.findings + shared(first.result, watched)
    refuse(f"{type(optimizer).__name__}.init", findings + repeat_call(first, call))


def _updated(
    optimizer: Optimizer, grads: Params, params: Params, state: OptimizerState, lr: Any
) -> dict[str, Any]:
    new, after = optimizer.update(grads, state, params, lr)
    return {"new_params": new, "new_state": after}


def _updated_in_place(
    optimizer: Optimizer, grads: Params, params: Params, state: OptimizerState, lr: Any
) -> dict[str, Any]:
    own, owned = copy(params), copy(state)
    optimizer.update_(grads, owned, own, lr)
    return {"new_params": own, "new_state": owned}


def _checked(
    optimizer: Optimizer,
    method: str,
    update: Callable[..., dict[str, Any]],
    params: Params,
    state: OptimizerState,
    step: int,
) -> tuple[Params, OptimizerState]:
    """Make an update that writes to none of its arguments, and return its results."""
    grads, lr = gradients(params, step), _rate(optimizer, step)
    inputs = {"params": params, "state": state, "grads": grads}
    spare = copy({"params": params, "state": state})

    def call(params: Params, state: OptimizerState) -> dict[str, Any]:
        with scoped(_SEED):
            return update(optimizer, grads, params, state, lr)

    first = watch_call(lambda: call(params, state), {**inputs, "optimizer": optimizer})
    # Unchanged tensors may share memory with the inputs.
    findings = first.findings + shared(first.result, inputs, lambda one, two: one == f"new_{two}")
    findings += repeat_twice(first, lambda: call(**spare), lambda: call(**spare))
    refuse(f"{type(optimizer).__name__}.{method}", findings)
    return first.result["new_params"], first.result["new_state"]


def _apart(rule: Params, kernel: Params) -> list[str]:
    found = []
    for path, ours in rule.items():
        bound = _BOUNDS.get(ours.dtype, 0.0)
        if not torch.allclose(ours, kernel[path], rtol=bound, atol=bound, equal_nan=True):
            gap = float((ours.double() - kernel[path].double()).abs().max())
            found.append(f"params[{path!r}] is another than by update: at most by {gap:.3g}")
    return found


def _incomplete(
    optimizer: Optimizer, path: list[tuple[Params, OptimizerState]], start: int
) -> list[str]:
    """Describe differences when updates are repeated from a copy of an earlier state."""
    params, state = copy(path[start])
    for step in range(start, _STEPS):
        with scoped(_SEED):
            params, state = optimizer.update(
                gradients(params, step), state, params, _rate(optimizer, step)
            )
    then = {"params": path[-1][0], "state": path[-1][1]}
    again = {"params": params, "state": state}
    return [
        f"{change.place} differs when the updates from {start} on are repeated: "
        f"{change.detail}. Something is remembered outside the state"
        for change in changes(snapshots(then), snapshots(again), "{} and {}")
    ]
