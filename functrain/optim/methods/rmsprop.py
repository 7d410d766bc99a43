"""RMSprop."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import add_ratio_, add_scaled_, blocks, constant, directed
from functrain.optim.hyperparameters import flag, is_zero, not_negative, rate, share
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise
from functrain.optim.numerics import safe_sqrt


@explained
@attrs.frozen
class RMSprop(Leafwise):
    """RMSprop (Tieleman & Hinton, 2012), as ``torch.optim.RMSprop``.

    The centered form (Graves, 2013) divides by the standard deviation. Where rounding makes the
    variance negative, as with a gradient that hardly changes, torch gives NaN; here it is 0.

    Args:
        lr: learning rate or schedule.
        alpha: decay of the running mean of the squared gradient.
        eps: added to the denominator.
        weight_decay: factor of the L2 penalty.
        momentum: how much of the last velocity is kept.
        centered: whether to take the squared mean gradient off the mean square.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> rmsprop = RMSprop(lr=0.1)
        >>> params = {"w": torch.tensor([2.0])}
        >>> state = rmsprop.init(params)
        >>> params, state = rmsprop.update({"w": torch.tensor([2.0])}, state, params, 0.1)
        >>> params["w"], state["square_avg"]["w"]
        (tensor([1.]), tensor([0.0400]))
    """

    lr: LearningRate = attrs.field(default=1e-2, validator=rate)
    alpha: float | Tensor = attrs.field(default=0.99, validator=share)
    eps: float | Tensor = attrs.field(default=1e-8, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    momentum: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    centered: bool = attrs.field(default=False, validator=flag)
    maximize: bool = attrs.field(default=False, validator=flag)

    counts_each: ClassVar[bool] = False  # no formula has the count
    elementwise: ClassVar[bool] = True

    @property
    def slots(self) -> tuple[str, ...]:
        """The mean square, the velocity where there is momentum, the mean where centered."""
        velocity = () if is_zero(self.momentum) else ("momentum_buffer",)
        return ("square_avg", *velocity, *(("grad_avg",) if self.centered else ()))

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the gradient over its root mean square, or along their running sum."""
        if self.maximize:
            grad = -grad
        if not is_zero(self.weight_decay):
            grad = grad + self.weight_decay * param

        alpha = self.alpha
        new = {"square_avg": alpha * slots["square_avg"] + (1 - alpha) * grad * grad}
        variance = new["square_avg"]
        if self.centered:
            new["grad_avg"] = alpha * slots["grad_avg"] + (1 - alpha) * grad
            variance = (variance - new["grad_avg"] ** 2).clamp(min=0)
        direction = grad / (safe_sqrt(variance) + self.eps)
        if not is_zero(self.momentum):
            direction = self.momentum * slots["momentum_buffer"] + direction
            new["momentum_buffer"] = direction
        return param - lr * direction, new

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do what the foreach form of ``torch.optim.RMSprop`` does, block by block."""
        alpha, eps = constant(self.alpha, params), constant(self.eps, params)
        decay, step = constant(self.weight_decay, params), constant(-lr, params)
        momentum = constant(self.momentum, params)
        for g, p, squares, *others in blocks(grads, params, *slots):
            g = directed(g, p, decay, self.maximize)
            torch._foreach_mul_(squares, alpha)
            torch._foreach_addcmul_(squares, g, g, 1 - alpha)

            if self.centered:
                torch._foreach_lerp_(others[-1], g, 1 - alpha)  # type: ignore[arg-type]
                roots = torch._foreach_addcmul(squares, others[-1], others[-1], -1)
                torch._foreach_clamp_min_(roots, 0)
                torch._foreach_sqrt_(roots)
            else:
                roots = torch._foreach_sqrt(squares)
            torch._foreach_add_(roots, eps)

            if len(others) == self.centered:
                add_ratio_(p, g, roots, step)
            else:
                torch._foreach_mul_(others[0], momentum)
                torch._foreach_addcdiv_(others[0], g, roots)
                add_scaled_(p, others[0], step)
            del g, roots
