"""LAMB: Adam's direction with a step as long as the layer's weights."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import add_constant_, add_scaled_, constant, directed, update_moments_
from functrain.optim.hyperparameters import as_tuple, flag, fractions, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise
from functrain.optim.methods.adam import Betas
from functrain.optim.numerics import power, safe_sqrt


@explained
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
        ConfigurationError: a value is out of range.

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

    slots = ("exp_avg", "exp_avg_sq")

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
        """Do the same with scalars computed once, on the CPU leaf by leaf."""
        step = scalars["step"].double()
        bias_correction1 = 1 - power(self.betas[0], step)
        root = constant(bias_correction1 / (1 - power(self.betas[1], step)) ** 0.5, params)
        eps = constant(self.eps * bias_correction1, params)
        decay = constant(self.weight_decay, params)
        for some, given, exp_avgs, exp_avg_sqs in _one_by_one(params, grads, *slots):
            given = directed(given, some, 0.0, self.maximize)
            update_moments_(exp_avgs, exp_avg_sqs, given, self.betas)
            directions = torch._foreach_sqrt(exp_avg_sqs)
            torch._foreach_mul_(directions, root)
            add_constant_(directions, eps)
            directions = torch._foreach_div(exp_avgs, directions)
            if not is_zero(self.weight_decay):
                add_scaled_(list(directions), some, decay)
            norms = torch._foreach_norm(some), torch._foreach_norm(directions)
            ratios = _trust_ratio(*map(torch.stack, norms))
            torch._foreach_mul_(directions, (lr * ratios).unbind())
            torch._foreach_sub_(some, directions)


def _one_by_one(*lists: Leaves) -> Iterator[tuple[Leaves, ...]]:
    """Yield leaf by leaf on the CPU, whose cache holds one; all on an accelerator."""
    if not lists[0][0].is_cpu:
        yield lists
        return
    for leaves in zip(*lists, strict=True):
        yield tuple([leaf] for leaf in leaves)


def _trust_ratio(param_norm: Tensor, step_norm: Tensor) -> Tensor:
    defined = (param_norm > 0) & (step_norm > 0)
    return torch.where(defined, param_norm / torch.where(defined, step_norm, 1.0), 1.0)
