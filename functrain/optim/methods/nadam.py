"""NAdam: Adam with Nesterov momentum."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import (
    add_constant_,
    add_scaled_,
    blocks,
    constant,
    directed,
    update_moments_,
)
from functrain.optim.hyperparameters import as_tuple, flag, fractions, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise
from functrain.optim.methods.adam import Betas
from functrain.optim.numerics import power, safe_sqrt


@explained
@attrs.frozen
class NAdam(Leafwise):
    """Adam with Nesterov momentum (Dozat, 2016), as ``torch.optim.NAdam``.

    The product of the momenta so far, ``mu_product``, is kept in float64. torch keeps it in the
    default dtype, which in float32 costs 8 digits of a float64 parameter.

    Args:
        lr: learning rate or schedule.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: factor of the L2 penalty, or of the decay where that is decoupled.
        momentum_decay: how fast the momentum grows from half of ``betas[0]`` to all of it:
            its distance is halved every ``17 / momentum_decay`` updates.
        decoupled_weight_decay: whether to decay as AdamW does.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> nadam = NAdam(lr=0.1)
        >>> params = {"w": torch.tensor([1.0])}
        >>> new, state = nadam.update({"w": torch.tensor([2.0])}, nadam.init(params), params, 0.1)
        >>> new["w"], state["mu_product"]
        (tensor([0.8944]), tensor(0.4501, dtype=torch.float64))
    """

    lr: LearningRate = attrs.field(default=2e-3, validator=rate)
    betas: Betas = attrs.field(default=(0.9, 0.999), converter=as_tuple, validator=fractions)
    eps: float | Tensor = attrs.field(default=1e-8, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    momentum_decay: float | Tensor = attrs.field(default=4e-3, validator=not_negative)
    decoupled_weight_decay: bool = attrs.field(default=False, validator=flag)
    maximize: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True
    slots = ("exp_avg", "exp_avg_sq")

    def init_scalars(self, device: torch.device | None) -> Scalars:
        """Return the empty product of momenta."""
        return {"mu_product": torch.ones((), dtype=torch.float64, device=device)}

    def advance(self, scalars: Scalars, lr: Rate, step: Tensor) -> Scalars:
        """Multiply this update's momentum in."""
        return {"mu_product": scalars["mu_product"] * self._momentum(step)}

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the gradient and the next momentum, over the root mean square."""
        if self.maximize:
            grad = -grad
        if not is_zero(self.weight_decay):
            if self.decoupled_weight_decay:
                param = param * (1 - lr * self.weight_decay)
            else:
                grad = grad + self.weight_decay * param

        beta1, beta2 = self.betas
        exp_avg = beta1 * slots["exp_avg"] + (1 - beta1) * grad
        exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1 - beta2) * grad * grad
        of_grad, of_mean, root = self._factors(scalars)
        ahead = (lr * of_grad) * grad + (lr * of_mean) * exp_avg
        denominator = safe_sqrt(exp_avg_sq) / root + self.eps
        return param - ahead / denominator, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do the same in as few passes as there are, block by block."""
        of_grad, of_mean, root = self._factors(scalars)
        # The bias correction of the root is moved to the factors, which are numbers.
        grad_step = constant(-lr * root * of_grad, params)
        mean_step = constant(-lr * root * of_mean, params)
        eps, keep = constant(root * self.eps, params), constant(1 - lr * self.weight_decay, params)
        decoupled = self.decoupled_weight_decay
        decay = constant(self.weight_decay, params)
        betas = constant(self.betas[0], params), constant(self.betas[1], params)
        for g, m, v, p in blocks(grads, *slots, params):
            if decoupled and not is_zero(decay):
                torch._foreach_mul_(p, keep)
            g = directed(g, p, 0.0 if decoupled else decay, self.maximize)
            update_moments_(m, v, g, betas)

            ahead = torch._foreach_mul(m, mean_step)
            add_scaled_(ahead, g, grad_step)
            denominators = torch._foreach_sqrt(v)
            add_constant_(denominators, eps)
            torch._foreach_addcdiv_(p, ahead, denominators)
            del g, ahead, denominators

    def _momentum(self, step: Tensor) -> Tensor:
        return self.betas[0] * (1 - 0.5 * power(0.96, step * self.momentum_decay))

    def _factors(self, scalars: Scalars) -> tuple[Tensor, Tensor, Tensor]:
        """Return those of the gradient and of its mean, and the bias correction of the root."""
        step, product = scalars["step"].double(), scalars["mu_product"]
        momentum, following = self._momentum(step), self._momentum(step + 1)
        of_grad = (1 - momentum) / (1 - product)
        of_mean = following / (1 - product * following)
        return of_grad, of_mean, (1 - power(self.betas[1], step)) ** 0.5
