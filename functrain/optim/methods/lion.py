"""Lion: steps by the sign of an interpolated momentum."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import blocks, constant, directed
from functrain.optim.hyperparameters import as_tuple, flag, fractions, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise
from functrain.optim.methods.adam import Betas


@explained
@attrs.frozen
class Lion(Leafwise):
    """Lion (Chen et al., 2023, "Symbolic discovery of optimization algorithms"), as ``optax.lion``.

    Every element moves by lr, so lr is to be 3 to 10 times smaller than for AdamW, and
    weight_decay as much larger (section 5 of the paper).

    Args:
        lr: learning rate or schedule.
        betas: weight of the momentum in the direction of an update, and its decay.
        weight_decay: how much of a parameter, times lr, every update takes away.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> lion = Lion(lr=0.1)
        >>> params = {"w": torch.tensor([1.0])}
        >>> params, state = lion.update({"w": torch.tensor([2.0])}, lion.init(params), params, 0.1)
        >>> params["w"], state["exp_avg"]["w"]
        (tensor([0.9000]), tensor([0.0200]))
    """

    lr: LearningRate = attrs.field(default=1e-4, validator=rate)
    betas: Betas = attrs.field(default=(0.9, 0.99), converter=as_tuple, validator=fractions)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    maximize: bool = attrs.field(default=False, validator=flag)

    counts_each: ClassVar[bool] = False  # no formula has the count
    elementwise: ClassVar[bool] = True
    slots = ("exp_avg",)

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step by the sign of the gradient mixed into the momentum, which then decays further."""
        if self.maximize:
            grad = -grad
        beta1, beta2 = self.betas
        exp_avg = slots["exp_avg"]
        direction = torch.sign(beta1 * exp_avg + (1 - beta1) * grad)
        if not is_zero(self.weight_decay):
            param = param * (1 - lr * self.weight_decay)
        return param - lr * direction, {"exp_avg": beta2 * exp_avg + (1 - beta2) * grad}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do the same block by block."""
        beta1, beta2 = self.betas
        keep, step = constant(1 - lr * self.weight_decay, params), constant(lr, params)
        for some, given, exp_avgs in blocks(params, grads, *slots):
            given = directed(given, some, 0.0, self.maximize)
            steps = torch._foreach_lerp(exp_avgs, given, 1 - beta1)  # type: ignore[arg-type]
            torch._foreach_lerp_(exp_avgs, given, 1 - beta2)  # type: ignore[arg-type]
            torch._foreach_sign_(steps)
            if not is_zero(self.weight_decay):
                torch._foreach_mul_(some, keep)
            torch._foreach_mul_(steps, step)
            torch._foreach_sub_(some, steps)
