"""Optimizers that treat every parameter alike and alone: a rule for one leaf, mapped over all.

Their state is ``{"step": 0-dim float32 tensor, slot: {path: tensor}, ...}``. One step count is
shared by all parameters, also by those that had no gradient in some steps, where torch.optim
counts for each parameter apart.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from functrain.optim.protocol import Optimizer, OptimizerState, Params

Leaves = list[Tensor]
Rate = float | Tensor

_FUSED_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_FUSED_DEVICES = frozenset({"cpu", "cuda", "xpu"})


class Leafwise(Optimizer, Protocol):
    """An optimizer given by its slots, the rule for one leaf, and a kernel for many."""

    __slots__ = ()

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of what is remembered for each parameter, in the order the kernel takes them."""
        ...

    def rule(
        self, grad: Tensor, slots: dict[str, Tensor], param: Tensor, lr: Rate, step: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a parameter and its slots after one update.

        Args:
            grad: the gradient, shaped as `param`.
            slots: what is remembered, by name, each shaped as `param`.
            param: the parameter.
            lr: learning rate of this update.
            step: number of this update from 1, as a 0-dim float64 tensor: in float32 a bias
                correction would be off by 6e-5 in the first steps.
        """
        ...

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, step: Tensor
    ) -> None:
        """Do the update in place on real tensors of one dtype, device and memory layout.

        Args:
            grads: the gradients.
            slots: for each name in `self.slots`, the tensors of all parameters.
            params: the parameters.
            lr: learning rate of this update.
            step: number of this update from 1, as a 0-dim float32 tensor.
        """
        ...

    def init(self, params: Params) -> OptimizerState:
        """Return zero slots and a zero step on the parameters' device."""
        device = next((param.device for param in params.values()), None)
        state: OptimizerState = {"step": torch.zeros((), device=device)}
        for slot in self.slots:
            state[slot] = {path: _zeros(param) for path, param in params.items()}
        return state

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any
    ) -> tuple[Params, OptimizerState]:
        """Map the rule over the leaves that have a gradient."""
        step = state["step"] + 1
        count = step.double()
        slots = {name: dict(state[name]) for name in self.slots}
        updated = dict(params)
        for path, grad in grads.items():
            leaf = {name: values[path] for name, values in slots.items()}
            updated[path], leaf = _apply(self, grad, leaf, params[path], lr, count)
            for name, value in leaf.items():
                slots[name][path] = value
        return updated, {"step": step, **slots}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Run the kernel, once where all leaves are alike; the rule where it does not apply."""
        with torch.no_grad():
            step = state["step"].add_(1)
            theirs = [params[path] for path in grads]
            slots = [[state[name][path] for path in grads] for name in self.slots]
            given = list(grads.values())
            kinds = {(param.dtype, param.device) for param in theirs}
            if len(kinds) == 1 and _fusible(kinds) and _alike(theirs, given, slots):
                self.kernel(given, slots, theirs, lr, step)
            else:
                _by_kind_(self, given, slots, theirs, lr, step)


def _by_kind_(
    optimizer: Leafwise,
    grads: Leaves,
    slots: list[Leaves],
    params: Leaves,
    lr: Rate,
    step: Tensor,
) -> None:
    """Run the kernel once for each dtype and device, and the rule where there is no kernel."""
    by_kind: dict[Any, list[int]] = {}
    for index, param in enumerate(params):
        by_kind.setdefault((param.dtype, param.device), []).append(index)
    for kind, indices in by_kind.items():
        own = [params[i] for i in indices]
        own_grads = [_laid_out_as(params[i], grads[i]) for i in indices]
        own_slots = [[slot[i] for i in indices] for slot in slots]
        count = step.to(kind[1])
        if _fusible({kind}) and _alike(own, own_grads, own_slots):
            optimizer.kernel(own_grads, own_slots, own, lr, count)
        else:
            _rule_(optimizer, own_grads, own_slots, own, lr, count)


def _rule_(
    optimizer: Leafwise,
    grads: Leaves,
    slots: list[Leaves],
    params: Leaves,
    lr: Rate,
    step: Tensor,
) -> None:
    """Write the rule's results into the tensors they came from."""
    names, count = optimizer.slots, step.double()
    for index, (grad, param) in enumerate(zip(grads, params, strict=True)):
        leaf = {name: slot[index] for name, slot in zip(names, slots, strict=True)}
        new, new_leaf = _apply(optimizer, grad, leaf, param, lr, count)
        param.copy_(new)
        for name, value in new_leaf.items():
            leaf[name].copy_(value)


def _apply(
    optimizer: Leafwise,
    grad: Tensor,
    slots: dict[str, Tensor],
    param: Tensor,
    lr: Rate,
    step: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Apply the rule to one leaf; a complex one as pairs of reals, as torch.optim does."""
    if param.is_complex():
        real = torch.view_as_real
        pairs = {name: real(slot) for name, slot in slots.items()}
        new, pairs = _apply(optimizer, real(grad), pairs, real(param), lr, step)
        back = {name: torch.view_as_complex(slot) for name, slot in pairs.items()}
        return torch.view_as_complex(new), back
    new, new_slots = optimizer.rule(grad, slots, param, lr, step)
    # A parameter without dimensions would take the dtype of a tensor lr of a wider one.
    return new.to(param.dtype), {name: new_slots[name].to(slots[name].dtype) for name in slots}


def _fusible(kinds: set[tuple[torch.dtype, torch.device]]) -> bool:
    return all(dtype in _FUSED_DTYPES and dev.type in _FUSED_DEVICES for dtype, dev in kinds)


def _alike(params: Leaves, grads: Leaves, slots: list[Leaves]) -> bool:
    """Whether each leaf's tensors lie alike in memory.

    The fused kernels walk the storages side by side and do not look at strides: a transposed
    or expanded gradient would silently update the wrong elements.
    """
    others = [grads, *slots]
    contiguous = Tensor.is_contiguous
    if all(all(map(contiguous, leaves)) for leaves in (params, *others)):
        return True
    strides = [param.stride() for param in params]
    return all([leaf.stride() for leaf in leaves] == strides for leaves in others) and all(
        map(_dense, params)
    )


def _laid_out_as(param: Tensor, grad: Tensor) -> Tensor:
    same = grad.stride() == param.stride()
    return grad if same else torch.empty_like(param).copy_(grad)


def _dense(tensor: Tensor) -> bool:
    """Whether the elements fill their storage without gaps or overlaps, in some order."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense(tensor))


def _zeros(param: Tensor) -> Tensor:
    return torch.zeros_like(param, memory_format=torch.preserve_format).detach()
