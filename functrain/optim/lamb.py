"""LAMB: Adam's direction with a step as long as the layer's weights."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from functrain.optim.adam import Betas
from functrain.optim.hyperparameters import as_tuple, flag, fractions, is_zero, not_negative, rate
from functrain.optim.leafwise import Leafwise, Leaves, Rate, Scalars, Slots
from functrain.optim.numerics import power, safe_sqrt
from functrain.optim.protocol import LearningRate


@attrs.frozen
class LAMB(Leafwise):
    """LAMB (You et al., 2020, "Large batch optimization for deep learning"), as ``optax.lamb``.

    The step of each parameter is scaled by the trust ratio, the norm of the parameter over the
    norm of Adam's step with decay; it is 1 where either is 0.

    Args:
        lr: learning rate or schedule.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: factor of the parameter that is added to the direction.
        maximize: whether to ascend.

    Raises:
        HyperparameterError: a value is out of range.

    Example:
        >>> lamb = LAMB(lr=0.1)
        >>> params = {"w": torch.tensor([3.0, 4.0])}
        >>> grads, state = {"w": torch.tensor([1.0, 1.0])}, lamb.init(params)
        >>> lamb.update(grads, state, params, 0.1)[0]["w"]
        tensor([2.6464, 3.6464])
    """

    lr: LearningRate = attrs.field(default=1e-3, validator=rate)
    betas: Betas = attrs.field(default=(0.9, 0.999), converter=as_tuple, validator=fractions)
    eps: float | Tensor = attrs.field(default=1e-6, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    maximize: bool = attrs.field(default=False, validator=flag)

    @property
    def slots(self) -> tuple[str, ...]:
        """The two moments."""
        return ("exp_avg", "exp_avg_sq")

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along Adam's direction, as far as the trust ratio says."""
        if self.maximize:
            grad = -grad
        beta1, beta2 = self.betas
        exp_avg = beta1 * slots["exp_avg"] + (1 - beta1) * grad
        exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1 - beta2) * grad * grad
        bias_correction1 = 1 - power(beta1, scalars["step"])
        bias_correction2 = 1 - power(beta2, scalars["step"])
        denominator = safe_sqrt(exp_avg_sq) / bias_correction2**0.5 + self.eps
        direction = exp_avg / bias_correction1 / denominator
        if not is_zero(self.weight_decay):
            direction = direction + self.weight_decay * param
        norms = torch.linalg.vector_norm(param), torch.linalg.vector_norm(direction)
        step_size = lr * _trust_ratio(*norms)
        return param - step_size * direction, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do the same to lists of tensors, with scalars computed once."""
        exp_avgs, exp_avg_sqs = slots
        beta1, beta2 = self.betas
        step = scalars["step"].double()
        if self.maximize:
            grads = list(torch._foreach_neg(grads))
        torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)  # type: ignore[arg-type]
        torch._foreach_mul_(exp_avg_sqs, beta2)
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)

        bias_correction1 = 1 - power(beta1, step)
        directions = torch._foreach_sqrt(exp_avg_sqs)
        torch._foreach_mul_(directions, bias_correction1 / (1 - power(beta2, step)) ** 0.5)
        torch._foreach_add_(directions, self.eps * bias_correction1)
        torch._foreach_reciprocal_(directions)
        torch._foreach_mul_(directions, exp_avgs)
        if not is_zero(self.weight_decay):
            torch._foreach_add_(directions, params, alpha=self.weight_decay)  # type: ignore[arg-type]

        norms = (
            torch.stack(torch._foreach_norm(params)),
            torch.stack(torch._foreach_norm(directions)),
        )
        step_sizes = (lr * _trust_ratio(*norms)).unbind()
        torch._foreach_mul_(directions, step_sizes)
        torch._foreach_sub_(params, directions)


def _trust_ratio(param_norm: Tensor, step_norm: Tensor) -> Tensor:
    defined = (param_norm > 0) & (step_norm > 0)
    return torch.where(defined, param_norm / torch.where(defined, step_norm, 1.0), 1.0)
