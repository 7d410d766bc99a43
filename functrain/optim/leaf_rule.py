"""The parts of an optimization method: a rule for one leaf, and a kernel for many."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

Leaves = list[Tensor]
Slots = dict[str, Tensor]
Rate = float | Tensor
Scalars = dict[str, Tensor]


class LeafRule(Protocol):
    """The slots of a parameter, the rule that updates one leaf, and the kernel for many."""

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

    @property
    def counts_each(self) -> bool:
        """Return whether a parameter that was skipped once has its own scalars, as in torch."""
        return True

    def init_leaf(self, param: Tensor) -> Slots:
        """Return the slots of one parameter before the first update: zeros, unless overridden."""
        return {slot: zeros_like(param) for slot in self.slots}

    def init_scalars(self, device: torch.device | None) -> Scalars:
        """Return the scalars that all parameters share, without the step: none by default."""
        return {}

    def advance(self, scalars: Scalars, lr: Rate, step: Tensor) -> Scalars:
        """Return the scalars of this update; `step` is its number, as in `rule`."""
        return scalars


def write_rule(
    optimizer: LeafRule,
    grads: Leaves,
    slots: list[Leaves],
    params: Leaves,
    lr: Rate,
    scalars: Scalars,
) -> None:
    """Write the rule's results into the tensors that it was given."""
    scalars = in_float64(scalars)
    for index, (grad, param) in enumerate(zip(grads, params, strict=True)):
        if not param.numel():
            continue
        named = zip(optimizer.slots, slots, strict=True)
        leaf = {name: slot[index] for name, slot in named if slot[index] is not None}
        new, new_leaf = applied(optimizer, grad, leaf, param, lr, scalars)
        param.copy_(new)
        for name, value in new_leaf.items():
            leaf[name].copy_(value)


def applied(
    optimizer: LeafRule,
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


def in_float64(scalars: Scalars) -> Scalars:
    """Return scalars with the step as a rule takes it."""
    return {**scalars, "step": scalars["step"].double()}


def zeros_like(param: Tensor) -> Tensor:
    """Return zeros of a parameter's shape, dtype, device and memory layout."""
    return torch.zeros_like(param, memory_format=torch.preserve_format).detach()
