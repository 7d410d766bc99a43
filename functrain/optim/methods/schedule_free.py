"""Schedule-Free: averaging instead of a decay of the learning rate."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import add_constant_, blocks, constant, directed
from functrain.optim.hyperparameters import (
    any_number,
    as_tuple,
    fraction,
    fractions,
    is_zero,
    not_negative,
    rate,
    whole,
)
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.methods.adam import Betas
from functrain.optim.methods.schedule_free_average import ScheduleFree, move_
from functrain.optim.numerics import power, safe_sqrt


@explained
@attrs.frozen
class ScheduleFreeSGD(ScheduleFree):
    """Schedule-Free SGD (Defazio et al., 2024), as ``schedulefree.SGDScheduleFree``.

    Give it a constant learning rate, at most with a warmup. ``params`` are the sequence y that
    gradients are taken at; evaluation uses the average x, which ``eval_step`` does by itself.
    Statistics of BatchNorm belong to y and are slightly off for x.

    Args:
        lr: learning rate; of SGD it is usually 10 to 50 times larger than with a decay.
        momentum: how far y is from z towards x, in (0, 1).
        weight_decay: factor of the L2 penalty at y.
        warmup_steps: updates over which lr rises in a straight line.
        r: power of the step in the weights of the average.
        weight_lr_power: power of the largest lr so far in the weights of the average.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> sgd = ScheduleFreeSGD(lr=1.0)
        >>> params = {"w": torch.tensor([1.0])}
        >>> params, state = sgd.update({"w": torch.tensor([0.5])}, sgd.init(params), params, 1.0)
        >>> params, state = sgd.update({"w": torch.tensor([0.5])}, state, params, 1.0)
        >>> params["w"], sgd.eval_params(state, params)["w"]
        (tensor([0.2250]), tensor([0.2500]))
    """

    lr: LearningRate = attrs.field(default=1.0, validator=rate)
    momentum: float | Tensor = attrs.field(default=0.9, validator=fraction)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    warmup_steps: int = attrs.field(default=0, validator=whole)
    r: float = attrs.field(default=0.0, validator=any_number)
    weight_lr_power: float = attrs.field(default=2.0, validator=not_negative)

    beta_name = "momentum"
    slots = ("z",)

    @property
    def beta(self) -> float | Tensor:
        """How far y is from z towards x."""
        return self.momentum

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Take a plain step from z, and move y towards it."""
        if not is_zero(self.weight_decay):
            grad = grad + self.weight_decay * param
        return self.moved(grad, slots["z"], param, lr, scalars)

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do the same block by block."""
        towards_z, along_y, along_z = self.factors(params, lr, scalars)
        decay = constant(self.weight_decay, params)
        for some, given, zs in blocks(params, grads, *slots):
            directions = directed(given, some, decay, maximize=False)
            move_(some, zs, directions, towards_z, along_y, along_z)


@explained
@attrs.frozen
class ScheduleFreeAdamW(ScheduleFree):
    """Schedule-Free AdamW (Defazio et al., 2024), as ``schedulefree.AdamWScheduleFree``.

    See `ScheduleFreeSGD` for what evaluation uses.

    Args:
        lr: learning rate, usually 1 to 10 times that of AdamW with a schedule.
        betas: how far y is from z towards x, in (0, 1), and the decay of the second moment.
        eps: added to the denominator.
        weight_decay: how much of y, times lr, every update takes away.
        warmup_steps: updates over which lr rises in a straight line.
        r: power of the step in the weights of the average.
        weight_lr_power: power of the largest lr so far in the weights of the average.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> adamw = ScheduleFreeAdamW(lr=0.1)
        >>> params = {"w": torch.tensor([1.0])}
        >>> grads, state = {"w": torch.tensor([2.0])}, adamw.init(params)
        >>> for _ in range(2):
        ...     params, state = adamw.update(grads, state, params, 0.1)
        >>> params["w"], adamw.eval_params(state, params)["w"]
        (tensor([0.8450]), tensor([0.8500]))
    """

    lr: LearningRate = attrs.field(default=0.0025, validator=rate)
    betas: Betas = attrs.field(default=(0.9, 0.999), converter=as_tuple, validator=fractions)
    eps: float | Tensor = attrs.field(default=1e-8, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    warmup_steps: int = attrs.field(default=0, validator=whole)
    r: float = attrs.field(default=0.0, validator=any_number)
    weight_lr_power: float = attrs.field(default=2.0, validator=not_negative)

    beta_name = "betas[0]"
    slots = ("z", "exp_avg_sq")

    @property
    def beta(self) -> float | Tensor:
        """How far y is from z towards x."""
        return self.betas[0]

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Take a step of RMSprop with decay from z, and move y towards it."""
        _, beta2 = self.betas
        exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1 - beta2) * grad * grad
        bias_correction2 = 1 - power(beta2, scalars["step"])
        direction = grad / (safe_sqrt(exp_avg_sq / bias_correction2) + self.eps)
        if not is_zero(self.weight_decay):
            direction = direction + self.weight_decay * param
        param, new = self.moved(direction, slots["z"], param, lr, scalars)
        return param, {**new, "exp_avg_sq": exp_avg_sq}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do the same block by block."""
        _, beta2 = self.betas
        towards_z, along_y, along_z = self.factors(params, lr, scalars)
        decay = constant(self.weight_decay, params)
        correction = constant(1 - power(beta2, scalars["step"].double()), params)
        for some, given, zs, exp_avg_sqs in blocks(params, grads, *slots):
            torch._foreach_mul_(exp_avg_sqs, beta2)
            torch._foreach_addcmul_(exp_avg_sqs, given, given, 1 - beta2)
            roots = torch._foreach_div(exp_avg_sqs, correction)
            torch._foreach_sqrt_(roots)
            add_constant_(roots, self.eps)
            directions = list(torch._foreach_div(given, roots))
            directions = directed(directions, some, decay, maximize=False)
            move_(some, zs, directions, towards_z, along_y, along_z)
