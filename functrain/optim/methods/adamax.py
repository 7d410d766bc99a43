"""Adamax: Adam by the infinity norm."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import add_ratio_, blocks, constant, directed
from functrain.optim.hyperparameters import as_tuple, flag, fractions, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise
from functrain.optim.methods.adam import Betas
from functrain.optim.numerics import power


@explained
@attrs.frozen
class Adamax(Leafwise):
    """Adamax (Kingma & Ba, 2015, section 7.1), as ``torch.optim.Adamax``.

    Args:
        lr: learning rate or schedule.
        betas: decay of the running mean of the gradient and of its largest absolute value.
        eps: added to the absolute value of the gradient.
        weight_decay: factor of the L2 penalty.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> adamax = Adamax(lr=0.1)
        >>> params = {"w": torch.tensor([1.0])}
        >>> new, state = adamax.update({"w": torch.tensor([2.0])}, adamax.init(params), params, 0.1)
        >>> new["w"], state["exp_inf"]["w"]
        (tensor([0.9000]), tensor([2.]))
    """

    lr: LearningRate = attrs.field(default=2e-3, validator=rate)
    betas: Betas = attrs.field(default=(0.9, 0.999), converter=as_tuple, validator=fractions)
    eps: float | Tensor = attrs.field(default=1e-8, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    maximize: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True
    slots = ("exp_avg", "exp_inf")

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the mean gradient over the decaying maximum of its absolute value."""
        if self.maximize:
            grad = -grad
        if not is_zero(self.weight_decay):
            grad = grad + self.weight_decay * param

        beta1, beta2 = self.betas
        exp_avg = beta1 * slots["exp_avg"] + (1 - beta1) * grad
        exp_inf = torch.maximum(beta2 * slots["exp_inf"], grad.abs() + self.eps)
        step_size = self._step_size(lr, scalars)
        return param - step_size * (exp_avg / exp_inf), {"exp_avg": exp_avg, "exp_inf": exp_inf}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do what the foreach form of ``torch.optim.Adamax`` does, block by block."""
        beta1, beta2 = (constant(beta, params) for beta in self.betas)
        eps, decay = constant(self.eps, params), constant(self.weight_decay, params)
        step = constant(-self._step_size(lr, scalars), params)
        for g, exp_avgs, exp_infs, p in blocks(grads, *slots, params):
            g = directed(g, p, decay, self.maximize)
            torch._foreach_lerp_(exp_avgs, g, 1 - beta1)  # type: ignore[arg-type]

            sizes = torch._foreach_abs(g)
            torch._foreach_add_(sizes, eps)
            torch._foreach_mul_(exp_infs, beta2)
            torch._foreach_maximum_(exp_infs, sizes)
            add_ratio_(p, exp_avgs, exp_infs, step)
            del g, sizes

    def _step_size(self, lr: Rate, scalars: Scalars) -> Tensor:
        return lr / (1 - power(self.betas[0], scalars["step"].double()))
