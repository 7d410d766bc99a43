"""One update of many leaves in place: the kernel where it applies, else the rule.

A kernel applies to tensors that lie in memory alike, on a device that has kernels for their dtype.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import OptimizerState, Params
from functrain.optim.leaf_rule import LeafRule, Leaves, Rate, Scalars, write_rule

_FUSED_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_FUSED_DEVICES = frozenset({"cpu", "cuda", "xpu"})
# Several calls for each leaf are most of a small step, so C loops over all of them.
_DTYPE, _DEVICE = operator.attrgetter("dtype"), operator.attrgetter("device")


def run_(
    optimizer: LeafRule,
    grads: Params,
    state: OptimizerState,
    params: Params,
    lr: Rate,
    scalars: Scalars,
) -> None:
    """Update the leaves that have a gradient in place, all by the same scalars."""
    theirs = list(map(params.__getitem__, grads))
    slots = [list(map(state[name].get, grads)) for name in optimizer.slots]
    given = list(grads.values())
    if _has_tensors(optimizer):
        write_rule(optimizer, given, slots, theirs, lr, scalars)
    elif theirs and _is_fusible(theirs) and alike(theirs, given, slots):
        optimizer.kernel(given, slots, theirs, lr, scalars)
    else:
        _by_kind_(optimizer, given, slots, theirs, lr, scalars)


def _by_kind_(
    optimizer: LeafRule,
    grads: Leaves,
    slots: list[Leaves],
    params: Leaves,
    lr: Rate,
    scalars: Scalars,
) -> None:
    """Run the kernel once for each dtype and device, and the rule where there is no kernel."""
    by_kind: dict[Any, list[int]] = {}
    grads = [laid_out_as(param, grad) for param, grad in zip(params, grads, strict=True)]
    for index, param in enumerate(params):
        # Each leaf decides for itself: a process that holds few of them must compute them alike.
        if param.numel():  # formulas of whole leaves divide by it
            own_slots = [[slot[index]] for slot in slots]
            kernel = alike([param], [grads[index]], own_slots)
            by_kind.setdefault((param.dtype, param.device, kernel), []).append(index)
    for kind, indices in by_kind.items():
        dtype, device, kernel = kind
        own, own_grads = [params[i] for i in indices], [grads[i] for i in indices]
        own_slots = [[slot[i] for i in indices] for slot in slots]
        moved = {name: value.to(device) for name, value in scalars.items()}
        if kernel and fusible(dtype, device):
            optimizer.kernel(own_grads, own_slots, own, lr, moved)
        else:
            write_rule(optimizer, own_grads, own_slots, own, lr, moved)


def _has_tensors(optimizer: LeafRule) -> bool:
    """Return whether a hyperparameter besides lr is a tensor; kernels take numbers."""
    for value in _hyperparameters(type(optimizer))(optimizer):
        if isinstance(value, Tensor):
            return True
        if isinstance(value, tuple) and any(map(isinstance, value, repeat(Tensor))):
            return True
    return False


@functools.cache
def _hyperparameters(kind: type) -> Callable[[LeafRule], tuple[Any, ...]]:
    """Return the function that gets all hyperparameters of an optimizer but its ``lr``."""
    names = [field.name for field in attrs.fields(kind) if field.name != "lr"]
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda optimizer: tuple(getattr(optimizer, name) for name in names)


def _is_fusible(params: Leaves) -> bool:
    """Return whether the first has a kernel, and all are on its device."""
    return fusible(params[0].dtype, params[0].device) and len(set(map(_DEVICE, params))) == 1


def fusible(dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether there are kernels for a dtype on a device."""
    return dtype in _FUSED_DTYPES and device.type in _FUSED_DEVICES


def alike(params: Leaves, grads: Leaves, slots: Sequence[Leaves]) -> bool:
    """Tell whether all have one dtype, and each leaf's tensors one size and lie alike in memory.

    The fused kernels walk the storages side by side and do not look at strides: a transposed
    or expanded gradient would silently update the wrong elements.

    A slot is ``None`` where a leaf has none.

    Example:
        >>> matrix = torch.zeros(2, 3)
        >>> alike([matrix], [matrix], []), alike([matrix], [torch.zeros(3, 2).t()], [])
        (True, False)
    """
    if any(map(operator.is_, chain(*slots), repeat(None))):
        return False
    if len(set(map(_DTYPE, chain(params, grads, *slots)))) != 1:
        return False
    others = (grads, *slots)
    sizes = list(map(Tensor.numel, params))
    if 0 in sizes or any(list(map(Tensor.numel, leaves)) != sizes for leaves in others):
        return False
    if all(map(Tensor.is_contiguous, chain(params, *others))):
        return True
    strides = [param.stride() for param in params]
    same = all([leaf.stride() for leaf in leaves] == strides for leaves in others)
    return same and all(map(_dense, params))


def laid_out_as(param: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient with the strides of its parameter, copied where it has others."""
    same = grad.stride() == param.stride()
    return grad if same else torch.empty_like(param).copy_(grad)


def _dense(tensor: Tensor) -> bool:
    """Return whether the elements fill their storage without gaps or overlaps, in any order."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense(tensor))
