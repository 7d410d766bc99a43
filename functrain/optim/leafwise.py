"""Optimizers that treat every parameter alike and alone: a rule for one leaf, mapped over all.

Their state is ``{"step": 0-dim float32 tensor, scalar: 0-dim tensor, ..., slot: {path: tensor},
...}``. A parameter without a gradient is skipped: value and slots stay as they are. One that was
ever skipped has its own step count and scalars, as all parameters have in torch.optim; see
`functrain.optim.update_counts`.
"""

from __future__ import annotations

import operator
from itertools import repeat
from typing import Any, ClassVar, Protocol

import torch

from functrain.core.optimizer import Averages, Optimizer, OptimizerState, Params
from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest
from functrain.optim.in_place import run_
from functrain.optim.leaf_rule import LeafRule, applied, in_float64
from functrain.optim.update_counts import (
    PER_PARAMETER,
    advance_,
    advanced,
    advanced_each,
    equal_counts,
    has_own,
    of_parameter,
    scalars_of,
)

_LAYOUT, _SHAPE = operator.attrgetter("layout"), operator.attrgetter("shape")


class Leafwise(LeafRule, Optimizer, Protocol):
    """An optimizer given by its slots, the rule for one leaf, and a kernel for many."""

    __slots__ = ()

    leafwise: ClassVar[bool] = True

    def averages(self) -> list[Averages]:
        """Say where the state has the weights to evaluate with, if those are not the parameters."""
        return []

    def eval_params(self, state: OptimizerState, params: Params) -> Params:
        """Return the parameters, or what :meth:`averages` says."""
        for one in self.averages():
            slot = state[one.slot]
            params = {path: one.weight(param, slot[path]) for path, param in params.items()}
        return params

    def init(self, params: Params) -> OptimizerState:
        """Return the slots and scalars before the first update, on the parameters' device."""
        device = next((param.device for param in params.values()), None)
        step = torch.zeros((), dtype=torch.float32, device=device)
        state: OptimizerState = {"step": step, **self.init_scalars(device)}
        state.update({slot: {} for slot in self.slots})
        for path, param in params.items():
            for slot, value in self.init_leaf(param).items():
                state[slot][path] = value
        return state

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any
    ) -> tuple[Params, OptimizerState]:
        """Map the rule over the leaves that have a gradient."""
        _check(self, grads, params)
        slots = {name: dict(state[name]) for name in self.slots}
        shared, own = scalars_of(self, grads, state, params)
        shared, own = advanced(self, shared, lr), advanced_each(self, own, grads, lr)
        common, updated = in_float64(shared), dict(params)
        for path, grad in grads.items():
            scalars = in_float64(of_parameter(own, path)) if has_own(own, path) else common
            leaf = {name: values[path] for name, values in slots.items() if path in values}
            updated[path], leaf = applied(self, grad, leaf, params[path], lr, scalars)
            for name, value in leaf.items():
                slots[name][path] = value
        kept = {PER_PARAMETER: own} if own else {}
        return updated, {**shared, **slots, **kept}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Run the kernel, once where all leaves are alike; the rule where it does not apply."""
        if not _fit(grads, params):
            _check(self, grads, params)
        with torch.set_grad_enabled(False):  # in half the calls of no_grad
            shared, own = scalars_of(self, grads, state, params)
            if own:
                state[PER_PARAMETER] = own
            advance_(self, shared, lr)
            counted = [path for path in own["step"] if path in grads] if own else []
            if not counted:
                run_(self, grads, state, params, lr, shared)
                return
            sharing = {path: grad for path, grad in grads.items() if not has_own(own, path)}
            run_(self, sharing, state, params, lr, shared)
            for paths in equal_counts(own, counted):
                for path in paths:
                    advance_(self, of_parameter(own, path), lr)
                given = {path: grads[path] for path in paths}
                run_(self, given, state, params, lr, of_parameter(own, paths[0]))


def _fit(grads: Params, params: Params) -> bool:
    """Return whether all gradients are dense, with the shapes of their parameters."""
    if not grads.keys() <= params.keys():
        return False
    given, theirs = grads.values(), map(params.__getitem__, grads)
    dense = all(map(operator.is_, map(_LAYOUT, given), repeat(torch.strided)))
    return dense and list(map(_SHAPE, given)) == list(map(_SHAPE, theirs))


def _check(optimizer: Leafwise, grads: Params, params: Params) -> None:
    """Refuse gradients that a kernel would read beyond, before anything is changed."""
    name = type(optimizer).__name__
    for path, grad in grads.items():
        param = params.get(path)
        if param is None:
            raise ConfigurationError(
                f"{name}: there is a gradient for {path!r}, which is not among the "
                f"{len(params)} parameters{nearest(path, params)}"
            )
        if grad.layout is not torch.strided:
            raise ConfigurationError(
                f"{name} takes dense gradients, and that of {path!r} is of layout {grad.layout}: "
                "give it grad.to_dense(), or use functrain.optim.from_torch with "
                "torch.optim.SGD, Adagrad or SparseAdam, which take sparse ones"
            )
        if grad.shape != param.shape:
            raise ConfigurationError(
                f"{name}: the gradient of {path!r} has shape {tuple(grad.shape)}, and the "
                f"parameter {tuple(param.shape)}"
            )
