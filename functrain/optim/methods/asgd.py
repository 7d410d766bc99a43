"""ASGD: averaged stochastic gradient descent."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Averages, LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import add_scaled_, blocks, constant, directed
from functrain.optim.hyperparameters import flag, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise


@explained
@attrs.frozen
class ASGD(Leafwise):
    """Averaged stochastic gradient descent (Polyak & Juditsky, 1992), as ``torch.optim.ASGD``.

    As in torch, an update takes the step size that the learning rate of the update before gave:
    ``lr / (1 + lambd * lr * step) ** alpha``; only the first takes its own, undiminished. The
    step sizes are kept in float64. torch keeps them in the default dtype, which in float32 costs
    8 digits of a float64 parameter.

    `eval_params` returns the averages, which torch leaves in ``state["ax"]``. Up to update
    ``t0 + 2`` they are the parameters themselves.

    Args:
        lr: learning rate or schedule.
        lambd: how much of a parameter, times the step size, every update takes away; how fast
            the step sizes fall.
        alpha: power of their fall.
        t0: after how many updates to start averaging.
        weight_decay: factor of the L2 penalty.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> asgd = ASGD(lr=0.1, lambd=0.0, t0=1)
        >>> params = {"w": torch.tensor([1.0])}
        >>> state = asgd.init(params)
        >>> for _ in range(4):
        ...     params, state = asgd.update({"w": torch.tensor([2.0])}, state, params, 0.1)
        >>> params["w"], asgd.eval_params(state, params)["w"]
        (tensor([0.2000]), tensor([0.3000]))
    """

    lr: LearningRate = attrs.field(default=1e-2, validator=rate)
    lambd: float | Tensor = attrs.field(default=1e-4, validator=not_negative)
    alpha: float | Tensor = attrs.field(default=0.75, validator=not_negative)
    t0: float | Tensor = attrs.field(default=1e6, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    maximize: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True
    slots = ("ax",)

    def init_leaf(self, param: Tensor) -> Slots:
        """Return the parameter as its average: its first gradient may come after `t0`."""
        return {"ax": param.detach().clone()}

    def init_scalars(self, device: torch.device | None) -> Scalars:
        """Return the step sizes of this update and the next, which are not known yet."""
        zero = torch.zeros((), dtype=torch.float64, device=device)
        return {"eta": zero, "next_eta": zero.clone()}

    def advance(self, scalars: Scalars, lr: Rate, step: Tensor) -> Scalars:
        """Take the step size that the last update left, and leave one to the next."""
        eta = torch.where(step == 1, lr, scalars["next_eta"])
        return {"eta": eta, "next_eta": lr / (1 + self.lambd * lr * step) ** self.alpha}

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step down the gradient, and move the average towards the result."""
        if self.maximize:
            grad = -grad
        eta, share = scalars["eta"], self._share(scalars)
        param = param - eta * (grad + (self.weight_decay + self.lambd) * param)
        return param, {"ax": (1 - share) * slots["ax"] + share * param}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do the same in as few passes as there are, block by block."""
        sign = -1 if self.maximize else 1
        decay = constant(sign * (self.weight_decay + self.lambd), params)
        step, share = constant(-sign * scalars["eta"], params), self._share(scalars)
        old, new = constant(1 - share, params), constant(share, params)
        for g, averages, p in blocks(grads, *slots, params):
            add_scaled_(p, directed(g, p, decay, maximize=False), step)
            if is_zero(old):
                torch._foreach_copy_(averages, p)
            else:
                torch._foreach_mul_(averages, old)
                add_scaled_(averages, p, new)

    def averages(self) -> list[Averages]:
        """Name the slot of the averages."""
        return [Averages("ax")]

    def _share(self, scalars: Scalars) -> Tensor:
        """Return the share of the new parameter in its average."""
        return 1 / torch.clamp(scalars["step"].double() - 1 - self.t0, min=1)
