"""Rprop: steps by the sign of the gradient, each element with a size of its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from numbers import Real
from operator import le, lt
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.optim.foreach import blocks, constant
from functrain.optim.hyperparameters import Attribute, as_tuple, flag, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise

Pair = tuple[float | Tensor, float | Tensor]


def _factors(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a number in (0, 1) and one above 1."""
    numbers = _numbers(value)
    if numbers is None or not _ascend(lt, 0, numbers[0], 1, numbers[1]):
        expected = "two numbers with 0 < etas[0] < 1 < etas[1]"
        raise ConfigurationError(f"Rprop: etas: expected {expected}, got {value!r}")


def _bounds(instance: object, attribute: Attribute, value: object) -> None:
    """Accept two numbers from 0 up in ascending order; the second may be infinite."""
    numbers = _numbers(value)
    if numbers is None or not _ascend(le, 0, *numbers):
        expected = "two numbers with 0 <= step_sizes[0] <= step_sizes[1]"
        raise ConfigurationError(f"Rprop: step_sizes: expected {expected}, got {value!r}")


def _numbers(value: object) -> Pair | None:
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    for each in value:
        if each.ndim if isinstance(each, Tensor) else not isinstance(each, Real):
            return None
    return value


def _ascend(before: Callable[[float, float], bool], *values: float | Tensor) -> bool:
    """Return whether the numbers ascend; tensors are not checked."""
    numbers = [value for value in values if not isinstance(value, Tensor)]
    return all(before(*two) for two in pairwise(numbers))


@explained
@attrs.frozen
class Rprop(Leafwise):
    """Resilient backpropagation (Riedmiller & Braun, 1993), as ``torch.optim.Rprop``.

    It suits full batches: only the sign of the gradient counts. The learning rate counts at a
    parameter's first update alone, as the size of its first step; as in torch, one of 0 there
    (a warmup) means the smallest step size.

    Args:
        lr: size of the first step, or a schedule.
        etas: factors of an element's step size after its gradient turned, and after it did not.
        step_sizes: the smallest and the largest step size.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> rprop = Rprop(lr=0.1)
        >>> params = {"w": torch.tensor([1.0])}
        >>> state = rprop.init(params)
        >>> params, state = rprop.update({"w": torch.tensor([2.0])}, state, params, 0.1)
        >>> params, state = rprop.update({"w": torch.tensor([9.0])}, state, params, 0.1)
        >>> params["w"], state["step_size"]["w"]
        (tensor([0.7800]), tensor([0.1200]))
    """

    lr: LearningRate = attrs.field(default=1e-2, validator=rate)
    etas: Pair = attrs.field(default=(0.5, 1.2), converter=as_tuple, validator=_factors)
    step_sizes: Pair = attrs.field(default=(1e-6, 50), converter=as_tuple, validator=_bounds)
    maximize: bool = attrs.field(default=False, validator=flag)

    counts_each: ClassVar[bool] = False  # no formula has the count
    elementwise: ClassVar[bool] = True
    # The sign of the last gradient, 0 where it turned, and the step size, 0 at the start: it says
    # whether a parameter has begun, as its first gradient may come late.
    slots = ("prev", "step_size")

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step by the sign of the gradient, further where it stayed, not at all where it turned."""
        sign = torch.sign(-grad if self.maximize else grad)
        (shrink, grow), (smallest, largest) = self.etas, self.step_sizes
        turn = sign * slots["prev"]
        size = torch.where(slots["step_size"] == 0, lr, slots["step_size"])
        size = torch.where(turn > 0, size * grow, torch.where(turn < 0, size * shrink, size))
        size = size.clamp(min=smallest).clamp(max=largest)
        sign = torch.where(turn < 0, 0.0, sign)
        return param - size * sign, {"prev": sign, "step_size": size}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do the same in arithmetic, which on the CPU takes a fifth of the time of masks."""
        first = constant(lr, params)
        shrink, grow = (constant(eta, params) for eta in self.etas)
        smallest, largest = (constant(size, params) for size in self.step_sizes)
        for g, prevs, sizes, p in blocks(grads, *slots, params):
            signs = torch._foreach_sign(g)
            if self.maximize:
                torch._foreach_neg_(signs)
            torch._foreach_mul_(prevs, signs)  # 1 where the gradient stayed, -1 where it turned
            torch._foreach_addcmul_(signs, signs, torch._foreach_clamp_max(prevs, 0))

            factors = torch._foreach_mul(prevs, grow)
            for prev, size in zip(prevs, sizes, strict=True):
                _replace_up_to_(size, 0, first)
                _replace_up_to_(prev, -1, shrink)
                _replace_up_to_(prev, 0, 1)
            torch._foreach_maximum_(factors, prevs)
            torch._foreach_mul_(sizes, factors)
            torch._foreach_clamp_min_(sizes, smallest)  # type: ignore[arg-type]
            torch._foreach_clamp_max_(sizes, largest)  # type: ignore[arg-type]
            torch._foreach_addcmul_(p, signs, sizes, -1)
            torch._foreach_copy_(prevs, signs)
            del signs, factors


def _replace_up_to_(leaf: Tensor, bound: float, value: Rate) -> None:
    """Replace all elements up to a bound by a value."""
    if isinstance(value, Tensor):
        leaf.copy_(torch.where(leaf > bound, leaf, value))
    else:
        torch.threshold_(leaf, bound, value)
