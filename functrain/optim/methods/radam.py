"""RAdam: Adam with a rectified adaptive step."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import add_constant_, blocks, constant, directed, update_moments_
from functrain.optim.hyperparameters import as_tuple, flag, fractions, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise
from functrain.optim.methods.adam import Betas
from functrain.optim.numerics import power, safe_sqrt


@explained
@attrs.frozen
class RAdam(Leafwise):
    """Rectified Adam (Liu et al., 2020), as ``torch.optim.RAdam``.

    The adaptive step is used where the length rho of the running mean of squares is above 5;
    before that, with usual betas in the first 5 updates, its variance is not bounded.

    Args:
        lr: learning rate or schedule.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: factor of the L2 penalty, or of the decay where that is decoupled.
        decoupled_weight_decay: whether to decay as AdamW does.
        maximize: whether to ascend.
        degenerated_to_sgd: what happens while rho is not above 5: with True a step of SGD with
            momentum, as in torch; with False no update and no decay, only the moments advance,
            as in the authors' code (github.com/LiyuanLucasLiu/RAdam).

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> radam = RAdam(lr=0.1, degenerated_to_sgd=False)
        >>> params = {"w": torch.tensor([1.0])}
        >>> new, state = radam.update({"w": torch.tensor([2.0])}, radam.init(params), params, 0.1)
        >>> new["w"], state["exp_avg"]["w"]
        (tensor([1.]), tensor([0.2000]))
    """

    lr: LearningRate = attrs.field(default=1e-3, validator=rate)
    betas: Betas = attrs.field(default=(0.9, 0.999), converter=as_tuple, validator=fractions)
    eps: float | Tensor = attrs.field(default=1e-8, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    decoupled_weight_decay: bool = attrs.field(default=False, validator=flag)
    maximize: bool = attrs.field(default=False, validator=flag)
    degenerated_to_sgd: bool = attrs.field(default=True, validator=flag)

    elementwise: ClassVar[bool] = True
    slots = ("exp_avg", "exp_avg_sq")

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the mean gradient, adaptively as far as that is rectified."""
        if self.maximize:
            grad = -grad
        adaptive, plain, keep = self._step_sizes(lr, scalars["step"])
        if not is_zero(self.weight_decay):
            if self.decoupled_weight_decay:
                param = param * keep
            else:
                grad = grad + self.weight_decay * param

        beta1, beta2 = self.betas
        exp_avg = beta1 * slots["exp_avg"] + (1 - beta1) * grad
        exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1 - beta2) * grad * grad
        step_size = adaptive / (safe_sqrt(exp_avg_sq) + self.eps) + plain
        return param - step_size * exp_avg, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do what the foreach form of ``torch.optim.RAdam`` does, with scalars computed once."""
        sizes = self._step_sizes(lr, scalars["step"].double())
        adaptive, plain, keep = (constant(size, params) for size in sizes)
        decay = 0.0 if self.decoupled_weight_decay else constant(self.weight_decay, params)
        shrinks = self.decoupled_weight_decay and not is_zero(self.weight_decay)
        for some, given, exp_avgs, exp_avg_sqs in blocks(params, grads, *slots):
            if shrinks:
                torch._foreach_mul_(some, keep)
            given = directed(given, some, decay, self.maximize)
            update_moments_(exp_avgs, exp_avg_sqs, given, self.betas)
            step_sizes = torch._foreach_sqrt(exp_avg_sqs)
            add_constant_(step_sizes, self.eps)
            torch._foreach_div_(step_sizes, -adaptive)
            torch._foreach_reciprocal_(step_sizes)
            add_constant_(step_sizes, -plain)
            torch._foreach_addcmul_(some, exp_avgs, step_sizes)

    def _step_sizes(self, lr: Rate, step: Tensor) -> tuple[Tensor, Tensor, Tensor | Rate]:
        """Return the factors of m/(sqrt(v)+eps), of m, and of the parameter (decoupled decay)."""
        beta1, beta2 = self.betas
        beta2_t = power(beta2, step)
        bias_correction1 = 1 - power(beta1, step)
        bias_correction2 = 1 - beta2_t
        rho_inf = 2 / (1 - beta2) - 1
        rho_t = rho_inf - 2 * step * beta2_t / bias_correction2

        rectified = rho_t > 5
        # The root of what is not used must be a number too, or its gradient is NaN.
        rho = torch.where(rectified, rho_t, rho_inf)
        rectification = torch.where(
            rectified,
            ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5,
            0.0,
        )
        size = lr / bias_correction1
        adaptive = bias_correction2**0.5 * (lr * rectification / bias_correction1)
        decay = lr * self.weight_decay
        if self.degenerated_to_sgd:
            return adaptive, torch.where(rectified, 0.0, size), 1 - decay
        return adaptive, torch.zeros_like(size), 1 - decay * rectified.to(size.dtype)
