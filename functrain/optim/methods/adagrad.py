"""Adagrad."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate
from functrain.errors.calls import explained
from functrain.optim.foreach import add_ratio_, blocks, constant, directed
from functrain.optim.hyperparameters import flag, is_zero, not_negative, rate
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots, zeros_like
from functrain.optim.leafwise import Leafwise
from functrain.optim.numerics import safe_sqrt


@explained
@attrs.frozen
class Adagrad(Leafwise):
    """Adagrad (Duchi et al., 2011), as ``torch.optim.Adagrad``.

    Args:
        lr: learning rate or schedule.
        lr_decay: the learning rate is divided by ``1 + lr_decay * (updates before this one)``.
        weight_decay: factor of the L2 penalty.
        initial_accumulator_value: what the sum of the squared gradients starts from.
        eps: added to the denominator.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> adagrad = Adagrad(lr=0.1, initial_accumulator_value=12.0)
        >>> params = {"w": torch.tensor([1.0])}
        >>> state = adagrad.init(params)
        >>> params, state = adagrad.update({"w": torch.tensor([2.0])}, state, params, 0.1)
        >>> params["w"], state["sum"]["w"]
        (tensor([0.9500]), tensor([16.]))
    """

    lr: LearningRate = attrs.field(default=1e-2, validator=rate)
    lr_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    initial_accumulator_value: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    eps: float | Tensor = attrs.field(default=1e-10, validator=not_negative)
    maximize: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True
    slots = ("sum",)

    @property
    def counts_each(self) -> bool:
        """Only the decay of the learning rate depends on the count."""
        return not is_zero(self.lr_decay)

    def init_leaf(self, param: Tensor) -> Slots:
        """Return the first sum; that of a complex parameter is of both its parts."""
        start = zeros_like(param)
        if is_zero(self.initial_accumulator_value):
            return {"sum": start}
        if param.is_complex():
            pairs = torch.view_as_real(start) + self.initial_accumulator_value
            return {"sum": torch.view_as_complex(pairs)}
        return {"sum": (start + self.initial_accumulator_value).to(param.dtype)}

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the gradient over the root of the sum of all squares."""
        if self.maximize:
            grad = -grad
        if not is_zero(self.weight_decay):
            grad = grad + self.weight_decay * param

        total = slots["sum"] + grad * grad
        step_size = self._step_size(lr, scalars)
        return param - step_size * (grad / (safe_sqrt(total) + self.eps)), {"sum": total}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Call the fused form where the device has it, or do what the foreach form does."""
        given = (lr, self.lr_decay, self.weight_decay, self.eps)
        first, lr_decay, decay, eps = (constant(value, params) for value in given)
        if _has_fused(params[0].device, first, lr_decay, decay, eps):
            torch._fused_adagrad_(
                params,
                grads,
                slots[0],
                [scalars["step"]] * len(params),
                lr=first,  # type: ignore[arg-type]
                lr_decay=lr_decay,  # type: ignore[arg-type]
                weight_decay=decay,  # type: ignore[arg-type]
                eps=eps,  # type: ignore[arg-type]
                maximize=self.maximize,
            )
            return
        step = constant(-self._step_size(lr, scalars), params)
        for g, totals, p in blocks(grads, *slots, params):
            g = directed(g, p, decay, self.maximize)
            torch._foreach_addcmul_(totals, g, g)
            roots = torch._foreach_sqrt(totals)
            torch._foreach_add_(roots, eps)
            add_ratio_(p, g, roots, step)
            del g, roots

    def _step_size(self, lr: Rate, scalars: Scalars) -> Tensor:
        return lr / (1 + (scalars["step"].double() - 1) * self.lr_decay)


def _has_fused(device: torch.device, *constants: Rate) -> bool:
    """Return whether this torch has the fused form for the device; early versions: only the CPU."""
    key = device.type.upper()
    has = torch._C._dispatch_has_kernel_for_dispatch_key("aten::_fused_adagrad_", key)
    return has and not any(isinstance(constant, Tensor) for constant in constants)
