"""Adadelta."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import add_scaled_, blocks, constant, directed
from functrain.optim.hyperparameters import flag, is_zero, not_negative, rate, share
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise
from functrain.optim.numerics import safe_sqrt


@explained
@attrs.frozen
class Adadelta(Leafwise):
    """Adadelta (Zeiler, 2012), as ``torch.optim.Adadelta``.

    Args:
        lr: learning rate or schedule; the paper has none, which is 1.
        rho: decay of the running means of the squares of the gradient and of the step.
        eps: added to both means under the root.
        weight_decay: factor of the L2 penalty.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> adadelta = Adadelta(lr=1.0, eps=0.01)
        >>> params = {"w": torch.tensor([1.0])}
        >>> state = adadelta.init(params)
        >>> params, state = adadelta.update({"w": torch.tensor([2.0])}, state, params, 1.0)
        >>> params["w"], state["square_avg"]["w"]
        (tensor([0.6877]), tensor([0.4000]))
    """

    lr: LearningRate = attrs.field(default=1.0, validator=rate)
    rho: float | Tensor = attrs.field(default=0.9, validator=share)
    eps: float | Tensor = attrs.field(default=1e-6, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    maximize: bool = attrs.field(default=False, validator=flag)

    counts_each: ClassVar[bool] = False  # no formula has the count
    elementwise: ClassVar[bool] = True
    # The mean squares of the gradient and of the step.
    slots = ("square_avg", "acc_delta")

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Scale the gradient by the root mean square of the steps over its own."""
        if self.maximize:
            grad = -grad
        if not is_zero(self.weight_decay):
            grad = grad + self.weight_decay * param

        rho, acc_delta = self.rho, slots["acc_delta"]
        square_avg = rho * slots["square_avg"] + (1 - rho) * grad * grad
        delta = safe_sqrt(acc_delta + self.eps) / safe_sqrt(square_avg + self.eps) * grad
        acc_delta = rho * acc_delta + (1 - rho) * delta * delta
        return param - lr * delta, {"square_avg": square_avg, "acc_delta": acc_delta}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do what the foreach form of ``torch.optim.Adadelta`` does, block by block."""
        rho, eps = constant(self.rho, params), constant(self.eps, params)
        decay, step = constant(self.weight_decay, params), constant(-lr, params)
        for g, square_avgs, acc_deltas, p in blocks(grads, *slots, params):
            g = directed(g, p, decay, self.maximize)
            torch._foreach_mul_(square_avgs, rho)
            torch._foreach_addcmul_(square_avgs, g, g, 1 - rho)

            roots = torch._foreach_add(square_avgs, eps)
            torch._foreach_sqrt_(roots)
            deltas = torch._foreach_add(acc_deltas, eps)
            torch._foreach_sqrt_(deltas)
            torch._foreach_div_(deltas, roots)
            torch._foreach_mul_(deltas, g)

            torch._foreach_mul_(acc_deltas, rho)
            torch._foreach_addcmul_(acc_deltas, deltas, deltas, 1 - rho)
            add_scaled_(p, deltas, step)
            del g, roots, deltas
