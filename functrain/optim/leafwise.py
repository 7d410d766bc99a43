"""Optimizers that treat every parameter alike and alone: a rule for one leaf, mapped over all.

Their state is ``{"step": 0-dim float32 tensor, scalar: 0-dim tensor, ..., slot: {path: tensor},
...}``. The step count and the other scalars are shared by all parameters, also by those that had
no gradient in some steps, where torch.optim counts for each parameter apart.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from functrain.errors import UnsupportedParameterError
from functrain.names import nearest
from functrain.optim.memory_layout import alike, fusible, laid_out_as
from functrain.optim.protocol import Optimizer, OptimizerState, Params

Leaves = list[Tensor]
Slots = dict[str, Tensor]
Rate = float | Tensor
Scalars = dict[str, Tensor]


class Leafwise(Optimizer, Protocol):
    """An optimizer given by its slots, the rule for one leaf, and a kernel for many."""

    __slots__ = ()

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of what is remembered for each parameter, in the order the kernel takes them."""
        ...

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Return a parameter and its slots after one update.

        Args:
            grad: the gradient, shaped as `param`.
            slots: what is remembered, by name, shaped as `init_leaf` made it.
            param: the parameter.
            lr: learning rate of this update.
            scalars: ``step``, the number of this update from 1, as a 0-dim float64 tensor (in
                float32 a bias correction would be off by 6e-5 in the first steps), and what
                `advance` returned for this update.
        """
        ...

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do the update in place on real tensors of one dtype, device and memory layout.

        By default the rule, with its results written back.

        Args:
            grads: the gradients.
            slots: for each name in `self.slots`, the tensors of all parameters; ``None`` stands
                for one that `init_leaf` did not make.
            params: the parameters.
            lr: learning rate of this update.
            scalars: as in `rule`, but ``step`` is as it is stored, float32.
        """
        write_rule(self, grads, slots, params, lr, scalars)

    def init_leaf(self, param: Tensor) -> Slots:
        """Return the slots of one parameter before the first update: zeros, unless overridden."""
        return {slot: zeros_like(param) for slot in self.slots}

    def init_scalars(self, device: torch.device | None) -> Scalars:
        """Return what is remembered for all parameters together besides the step: nothing."""
        return {}

    def advance(self, scalars: Scalars, lr: Rate, step: Tensor) -> Scalars:
        """Return the scalars of this update; `step` is its number, as in `rule`."""
        return scalars

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
        step = state["step"] + 1
        slots = {name: dict(state[name]) for name in self.slots}
        count = step.double()
        carried = self.advance(_carried(state, slots), lr, count)
        scalars = {"step": count, **carried}
        updated = dict(params)
        for path, grad in grads.items():
            leaf = {name: values[path] for name, values in slots.items() if path in values}
            updated[path], leaf = _apply(self, grad, leaf, params[path], lr, scalars)
            for name, value in leaf.items():
                slots[name][path] = value
        return updated, {"step": step, **carried, **slots}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Run the kernel, once where all leaves are alike; the rule where it does not apply."""
        _check(self, grads, params)
        theirs = [params[path] for path in grads]
        slots = [[state[name].get(path) for path in grads] for name in self.slots]
        given = list(grads.values())
        with torch.no_grad():
            scalars = {"step": state["step"].add_(1), **_carried(state, self.slots)}
            if len(scalars) > 1:
                _advance_(self, scalars, lr)
            kinds = {(param.dtype, param.device) for param in theirs}
            if _has_tensors(self):
                write_rule(self, given, slots, theirs, lr, scalars)
            elif len(kinds) == 1 and fusible(kinds) and alike(theirs, given, slots):
                self.kernel(given, slots, theirs, lr, scalars)
            else:
                _by_kind_(self, given, slots, theirs, lr, scalars)


def write_rule(
    optimizer: Leafwise,
    grads: Leaves,
    slots: list[Leaves],
    params: Leaves,
    lr: Rate,
    scalars: Scalars,
) -> None:
    """Write the rule's results into the tensors they came from.

    Args:
        optimizer: whose rule.
        grads: the gradients.
        slots: for each of the optimizer's slots, the tensors of all parameters.
        params: the parameters.
        lr: learning rate of this update.
        scalars: as `Leafwise.kernel` gets them.
    """
    scalars = {**scalars, "step": scalars["step"].double()}
    for index, (grad, param) in enumerate(zip(grads, params, strict=True)):
        named = zip(optimizer.slots, slots, strict=True)
        leaf = {name: slot[index] for name, slot in named if slot[index] is not None}
        new, new_leaf = _apply(optimizer, grad, leaf, param, lr, scalars)
        param.copy_(new)
        for name, value in new_leaf.items():
            leaf[name].copy_(value)


def zeros_like(param: Tensor) -> Tensor:
    """Return zeros of a parameter's shape, dtype, device and memory layout."""
    return torch.zeros_like(param, memory_format=torch.preserve_format).detach()


def _carried(state: OptimizerState, slots: Iterable[str]) -> Scalars:
    return {name: state[name] for name in state if name != "step" and name not in slots}


def _advance_(optimizer: Leafwise, scalars: Scalars, lr: Rate) -> None:
    carried = {name: value for name, value in scalars.items() if name != "step"}
    for name, value in optimizer.advance(carried, lr, scalars["step"].double()).items():
        scalars[name].copy_(value)


def _by_kind_(
    optimizer: Leafwise,
    grads: Leaves,
    slots: list[Leaves],
    params: Leaves,
    lr: Rate,
    scalars: Scalars,
) -> None:
    """Run the kernel once for each dtype and device, and the rule where there is no kernel."""
    by_kind: dict[Any, list[int]] = {}
    for index, param in enumerate(params):
        by_kind.setdefault((param.dtype, param.device), []).append(index)
    for kind, indices in by_kind.items():
        own = [params[i] for i in indices]
        own_grads = [laid_out_as(params[i], grads[i]) for i in indices]
        own_slots = [[slot[i] for i in indices] for slot in slots]
        moved = {name: value.to(kind[1]) for name, value in scalars.items()}
        if fusible({kind}) and alike(own, own_grads, own_slots):
            optimizer.kernel(own_grads, own_slots, own, lr, moved)
        else:
            write_rule(optimizer, own_grads, own_slots, own, lr, moved)


def _apply(
    optimizer: Leafwise,
    grad: Tensor,
    slots: Slots,
    param: Tensor,
    lr: Rate,
    scalars: Scalars,
) -> tuple[Tensor, Slots]:
    """Apply the rule to one leaf; a complex one as pairs of reals, as torch.optim does."""
    if param.is_complex():

        def real(tensor: Tensor) -> Tensor:
            return torch.view_as_real(tensor.resolve_conj())

        pairs = {name: real(slot) for name, slot in slots.items()}
        new, pairs = _apply(optimizer, real(grad), pairs, real(param), lr, scalars)
        back = {name: torch.view_as_complex(slot) for name, slot in pairs.items()}
        return torch.view_as_complex(new), back
    new, new_slots = optimizer.rule(grad, slots, param, lr, scalars)
    # A parameter without dimensions would take the dtype of a tensor lr of a wider one.
    return new.to(param.dtype), {name: new_slots[name].to(slots[name].dtype) for name in slots}


def _check(optimizer: Leafwise, grads: Params, params: Params) -> None:
    """Refuse gradients that a kernel would read beyond, before anything is changed."""
    name = type(optimizer).__name__
    for path, grad in grads.items():
        param = params.get(path)
        if param is None:
            raise UnsupportedParameterError(
                f"{name}: there is a gradient for {path!r}, which is not among the "
                f"{len(params)} parameters{nearest(path, params)}"
            )
        if grad.layout is not torch.strided:
            raise UnsupportedParameterError(
                f"{name} takes dense gradients, and that of {path!r} is of layout {grad.layout}: "
                "give it grad.to_dense(), or use functrain.optim.from_torch with "
                "torch.optim.SGD, Adagrad or SparseAdam, which take sparse ones"
            )
        if grad.shape != param.shape:
            raise UnsupportedParameterError(
                f"{name}: the gradient of {path!r} has shape {tuple(grad.shape)}, and the "
                f"parameter {tuple(param.shape)}"
            )


def _has_tensors(optimizer: Leafwise) -> bool:
    """Whether a hyperparameter besides lr is a tensor; kernels take numbers."""
    for name in _names(type(optimizer)):
        value = getattr(optimizer, name)
        if isinstance(value, Tensor):
            return True
        if isinstance(value, tuple) and any(isinstance(item, Tensor) for item in value):
            return True
    return False


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind) if field.name != "lr")
