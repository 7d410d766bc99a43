"""Stochastic gradient descent."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.core.precision import widest
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.optim.foreach import add_scaled_, blocks, constant, directed
from functrain.optim.hyperparameters import any_number, flag, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise


@explained
@attrs.frozen
class SGD(Leafwise):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD``.

    Args:
        lr: learning rate or schedule.
        momentum: how much of the last velocity is kept.
        dampening: how much of the gradient the velocity leaves out, except at the first update.
        weight_decay: factor of the L2 penalty.
        nesterov: whether to look ahead along the velocity.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range, or nesterov is without momentum.

    Example:
        >>> sgd = SGD(lr=0.1, momentum=0.9)
        >>> params = {"w": torch.tensor([1.0])}
        >>> params, state = sgd.update({"w": torch.tensor([2.0])}, sgd.init(params), params, 0.1)
        >>> params["w"], state["momentum_buffer"]["w"]
        (tensor([0.8000]), tensor([2.]))
    """

    lr: LearningRate = attrs.field(default=1e-3, validator=rate)
    momentum: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    dampening: float | Tensor = attrs.field(default=0.0, validator=any_number)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    nesterov: bool = attrs.field(default=False, validator=flag)
    maximize: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        if self.nesterov and (is_zero(self.momentum) or not is_zero(self.dampening)):
            raise ConfigurationError(
                "SGD: nesterov=True needs momentum > 0 and dampening = 0, got "
                f"momentum={self.momentum} and dampening={self.dampening}"
            )

    @property
    def counts_each(self) -> bool:
        """Only the first update with dampening depends on the count."""
        return not (is_zero(self.momentum) or is_zero(self.dampening))

    @property
    def slots(self) -> tuple[str, ...]:
        """The velocity, where there is momentum."""
        return () if is_zero(self.momentum) else ("momentum_buffer",)

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the velocity (Sutskever et al., 2013, in torch's form)."""
        if self.maximize:
            grad = -grad
        if not is_zero(self.weight_decay):
            grad = grad + self.weight_decay * param
        if is_zero(self.momentum):
            return param - lr * grad, {}

        velocity = self.momentum * slots["momentum_buffer"] + (1 - self.dampening) * grad
        if not is_zero(self.dampening):
            velocity = torch.where(scalars["step"] == 1, grad, velocity)
        direction = grad + self.momentum * velocity if self.nesterov else velocity
        return param - lr * direction, {"momentum_buffer": velocity}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Call the fused form that ``torch.optim.SGD(fused=True)`` calls."""
        on_cpu = params[0].is_cpu
        # There torch's fused form leaves halves as they are (pytorch issue 191763). Elsewhere it
        # would wait for the device, to know whether dampening begins.
        half = on_cpu and params[0].dtype in (torch.float16, torch.bfloat16)
        if half or not (on_cpu or is_zero(self.dampening)):
            self._in_parts_(grads, slots, params, lr, scalars)
            return
        torch._fused_sgd_(
            params,
            grads,
            slots[0] if slots else [],
            weight_decay=self.weight_decay,  # type: ignore[arg-type]
            momentum=self.momentum,  # type: ignore[arg-type]
            lr=lr,  # type: ignore[arg-type]
            dampening=self.dampening,  # type: ignore[arg-type]
            nesterov=self.nesterov,
            maximize=self.maximize,
            # The buffer starts at zero, so without dampening the first step is as any other.
            is_first_step=bool(slots) and on_cpu and scalars["step"].item() == 1,
        )

    def _in_parts_(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do what the foreach form of ``torch.optim.SGD`` does, block by block."""
        decay, step = constant(self.weight_decay, params), constant(-lr, params)
        momentum = constant(self.momentum, params)
        share = self._share(scalars["step"], params)
        for given, some, *velocities in blocks(grads, params, *slots):
            given = directed(given, some, decay, self.maximize)
            for velocity in velocities:
                torch._foreach_mul_(velocity, momentum)
                add_scaled_(velocity, given, share)
                given = velocity if not self.nesterov else _ahead(given, velocity, momentum)
            add_scaled_(some, given, step)

    def _share(self, step: Tensor, params: Leaves) -> Rate:
        """Return the factor of the gradient in the velocity, which dampening spares at first."""
        later = 1 - constant(self.dampening, params)
        if step.is_cpu:
            return 1.0 if step.item() == 1 else later
        one = torch.ones_like(step, dtype=widest(step.device))  # of two numbers torch makes float32
        return constant(torch.where(step == 1, one, later), params)


def _ahead(grads: Leaves, velocity: Leaves, momentum: Rate) -> Leaves:
    ahead = [grad.clone() for grad in grads]
    add_scaled_(ahead, velocity, momentum)
    return ahead
