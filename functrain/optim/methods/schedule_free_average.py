"""The average of the Schedule-Free optimizers: three sequences, two of them stored.

``z`` takes plain steps, ``x`` is the weighted average of it, and gradients are taken at
``y = beta * x + (1 - beta) * z``. Parameters are y; x follows from y and z.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from functrain.core.optimizer import Averages
from functrain.errors import ConfigurationError
from functrain.optim.foreach import add_scaled_, constant
from functrain.optim.hyperparameters import is_zero
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise


class ScheduleFree(Leafwise):
    """An optimizer that averages; a subclass says along which direction z steps.

    Attributes:
        beta_name: the hyperparameter that is beta.
    """

    __slots__ = ()
    counts_each: ClassVar[bool] = False  # as in the authors' code, which has one count a group
    elementwise: ClassVar[bool] = True
    beta_name: ClassVar[str]
    warmup_steps: int
    r: float
    weight_lr_power: float

    @property
    def beta(self) -> float | Tensor:
        """How far y is from z towards x."""
        raise NotImplementedError

    def __attrs_post_init__(self) -> None:
        if is_zero(self.beta):  # with which y is z and says nothing of x
            raise ConfigurationError(
                f"{type(self).__name__}: {self.beta_name}: expected a number above 0, since "
                "evaluation could not tell the average from the parameters otherwise; got 0"
            )

    def init_leaf(self, param: Tensor) -> Slots:
        """Return a copy of the parameter as z, and zeros in the other slots."""
        return {**super().init_leaf(param), "z": param.detach().clone()}

    def init_scalars(self, device: torch.device | None) -> Scalars:
        """Return the sum of the weights of z in the average, and the largest lr so far."""
        # In float32 a sum of a million small weights would no longer grow.
        zero = torch.zeros((), dtype=torch.float64, device=device)
        return {"weight_sum": zero, "lr_max": zero.clone()}

    def advance(self, scalars: Scalars, lr: Rate, step: Tensor) -> Scalars:
        """Add this update's weight to the sum."""
        lr_max = torch.maximum(scalars["lr_max"], self._warmed_up(lr, step))
        weight_sum = scalars["weight_sum"] + self._weight(lr_max, step)
        return {"weight_sum": weight_sum, "lr_max": lr_max}

    def averages(self) -> list[Averages]:
        """Say where on the line through y and z the average x is."""
        return [Averages("z", share=1 - 1 / self.beta)]

    def moved(
        self, direction: Tensor, z: Tensor, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Return y and z after a step of z; x is not kept, it is ``(y - (1 - beta) z) / beta``."""
        share, lr = self._share(scalars), self._warmed_up(lr, scalars["step"])
        y = param + share * (z - param) + lr * (self.beta * (1 - share) - 1) * direction
        return y, {"z": z - lr * direction}

    def factors(self, params: Leaves, lr: Rate, scalars: Scalars) -> tuple[Rate, Rate, Rate]:
        """Return the factors of z - y and of the direction in y, and of the direction in z."""
        scalars = {**scalars, "step": scalars["step"].double()}
        share, lr = self._share(scalars), self._warmed_up(lr, scalars["step"])
        along_y = lr * (self.beta * (1 - share) - 1)
        return constant(share, params), constant(along_y, params), constant(-lr, params)

    def _warmed_up(self, lr: Rate, step: Tensor) -> Tensor:
        return lr * torch.clamp(step / max(1, self.warmup_steps), max=1.0)

    def _weight(self, lr_max: Tensor, step: Tensor) -> Tensor:
        return step**self.r * lr_max**self.weight_lr_power

    def _share(self, scalars: Scalars) -> Tensor:
        """Return the share of the new z in the average x."""
        weight = self._weight(scalars["lr_max"], scalars["step"])
        total = scalars["weight_sum"]
        return torch.where(total > 0, weight / torch.where(total > 0, total, 1.0), 0.0)


def move_(
    params: Leaves, zs: Leaves, directions: Leaves, towards_z: Rate, along_y: Rate, along_z: Rate
) -> None:
    """Do what `moved` does to lists of tensors, by the numbers that `factors` gave."""
    add_scaled_(params, list(torch._foreach_sub(zs, params)), towards_z)
    add_scaled_(params, directions, along_y)
    add_scaled_(zs, directions, along_z)
