"""One update of many leaves in place: the kernel where it applies, else the rule."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import OptimizerState, Params
from functrain.optim.counts import in_float64
from functrain.optim.memory_layout import alike, fusible, laid_out_as

if TYPE_CHECKING:  # an optimizer's kernel is by default the rule, written here
    from functrain.optim.leafwise import Leafwise, Leaves, Rate, Scalars, Slots


def run_(
    optimizer: Leafwise,
    grads: Params,
    state: OptimizerState,
    params: Params,
    lr: Rate,
    scalars: Scalars,
) -> None:
    """Update the leaves that have a gradient in place, all by the same scalars.

    Args:
        optimizer: whose rule and kernel.
        grads: the gradients.
        state: where the slots are.
        params: the parameters.
        lr: learning rate of this update.
        scalars: as `Leafwise.kernel` gets them.
    """
    theirs = [params[path] for path in grads]
    slots = [[state[name].get(path) for path in grads] for name in optimizer.slots]
    given = list(grads.values())
    kinds = {(param.dtype, param.device) for param in theirs}
    if _has_tensors(optimizer):
        write_rule(optimizer, given, slots, theirs, lr, scalars)
    elif len(kinds) == 1 and fusible(kinds) and alike(theirs, given, slots):
        optimizer.kernel(given, slots, theirs, lr, scalars)
    else:
        _by_kind_(optimizer, given, slots, theirs, lr, scalars)


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
    scalars = in_float64(scalars)
    for index, (grad, param) in enumerate(zip(grads, params, strict=True)):
        named = zip(optimizer.slots, slots, strict=True)
        leaf = {name: slot[index] for name, slot in named if slot[index] is not None}
        new, new_leaf = applied(optimizer, grad, leaf, param, lr, scalars)
        param.copy_(new)
        for name, value in new_leaf.items():
            leaf[name].copy_(value)


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


def applied(
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
        new, pairs = applied(optimizer, real(grad), pairs, real(param), lr, scalars)
        back = {name: torch.view_as_complex(slot) for name, slot in pairs.items()}
        return torch.view_as_complex(new), back
    new, new_slots = optimizer.rule(grad, slots, param, lr, scalars)
    # A parameter without dimensions would take the dtype of a tensor lr of a wider one.
    return new.to(param.dtype), {name: new_slots[name].to(slots[name].dtype) for name in slots}


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
