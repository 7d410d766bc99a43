"""Adam and AdamW."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import as_tuple, flag, fractions, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise
from functrain.optim.numerics import power, safe_sqrt

_MOMENTS = ("exp_avg", "exp_avg_sq")
Betas = tuple[float | Tensor, float | Tensor]


@explained
@attrs.frozen
class Adam(Leafwise):
    """Adam (Kingma & Ba, 2015) with an L2 penalty, as ``torch.optim.Adam``.

    Args:
        lr: learning rate or schedule.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: factor of the L2 penalty, which passes through the moments.
        amsgrad: whether to divide by the largest second moment so far (Reddi et al., 2018).
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> adam = Adam(lr=0.1)
        >>> params = {"w": torch.tensor([1.0])}
        >>> params, state = adam.update({"w": torch.tensor([2.0])}, adam.init(params), params, 0.1)
        >>> params["w"], state["step"]
        (tensor([0.9000]), tensor(1.))
    """

    lr: LearningRate = attrs.field(default=1e-3, validator=rate)
    betas: Betas = attrs.field(default=(0.9, 0.999), converter=as_tuple, validator=fractions)
    eps: float | Tensor = attrs.field(default=1e-8, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    amsgrad: bool = attrs.field(default=False, validator=flag)
    maximize: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True

    @property
    def slots(self) -> tuple[str, ...]:
        """The two moments, and the largest second one for amsgrad."""
        return (*_MOMENTS, "max_exp_avg_sq") if self.amsgrad else _MOMENTS

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the mean gradient over its root mean square."""
        if self.maximize:
            grad = -grad
        if not is_zero(self.weight_decay):
            grad = grad + self.weight_decay * param
        return _step(self, grad, slots, param, lr, scalars["step"])

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Call the fused form that ``torch.optim.Adam(fused=True)`` calls."""
        steps = [scalars["step"]] * len(params)
        torch._fused_adam_(params, grads, *_moments(slots), steps, lr=lr, **_scalars(self))  # type: ignore[call-overload]


@explained
@attrs.frozen
class AdamW(Leafwise):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019), as ``torch.optim.AdamW``.

    Args:
        lr: learning rate or schedule.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: how much of a parameter, times lr, every update takes away.
        amsgrad: whether to divide by the largest second moment so far (Reddi et al., 2018).
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> adamw = AdamW(lr=0.1, weight_decay=0.5)
        >>> params = {"w": torch.tensor([1.0])}
        >>> params, _ = adamw.update({"w": torch.tensor([2.0])}, adamw.init(params), params, 0.1)
        >>> params["w"]
        tensor([0.8500])
    """

    lr: LearningRate = attrs.field(default=1e-3, validator=rate)
    betas: Betas = attrs.field(default=(0.9, 0.999), converter=as_tuple, validator=fractions)
    eps: float | Tensor = attrs.field(default=1e-8, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=1e-2, validator=not_negative)
    amsgrad: bool = attrs.field(default=False, validator=flag)
    maximize: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True

    @property
    def slots(self) -> tuple[str, ...]:
        """The two moments, and the largest second one for amsgrad."""
        return (*_MOMENTS, "max_exp_avg_sq") if self.amsgrad else _MOMENTS

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Shrink the parameter, then take Adam's step."""
        if self.maximize:
            grad = -grad
        if not is_zero(self.weight_decay):
            param = param * (1 - lr * self.weight_decay)
        return _step(self, grad, slots, param, lr, scalars["step"])

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Call the fused form that ``torch.optim.AdamW(fused=True)`` calls."""
        steps = [scalars["step"]] * len(params)
        torch._fused_adamw_(params, grads, *_moments(slots), steps, lr=lr, **_scalars(self))  # type: ignore[call-overload]


def _step(
    adam: Adam | AdamW,
    grad: Tensor,
    slots: Slots,
    param: Tensor,
    lr: Rate,
    step: Tensor,
) -> tuple[Tensor, Slots]:
    beta1, beta2 = adam.betas
    exp_avg = beta1 * slots["exp_avg"] + (1 - beta1) * grad
    exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1 - beta2) * grad * grad
    new = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    if adam.amsgrad:
        exp_avg_sq = torch.maximum(slots["max_exp_avg_sq"], exp_avg_sq)
        new["max_exp_avg_sq"] = exp_avg_sq

    bias_correction1 = 1 - power(beta1, step)
    bias_correction2 = 1 - power(beta2, step)
    denominator = safe_sqrt(exp_avg_sq) / bias_correction2**0.5 + adam.eps
    return param - (lr / bias_correction1) * (exp_avg / denominator), new


def _moments(slots: list[Leaves]) -> tuple[Leaves, Leaves, Leaves]:
    return slots[0], slots[1], slots[2] if len(slots) == 3 else []


def _scalars(adam: Adam | AdamW) -> dict[str, float | Tensor]:
    return {
        "beta1": adam.betas[0],
        "beta2": adam.betas[1],
        "weight_decay": adam.weight_decay,
        "eps": adam.eps,
        "amsgrad": adam.amsgrad,
        "maximize": adam.maximize,
    }
