"""The average of the Schedule-Free optimizers: three sequences, two of them stored.

``z`` takes plain steps, ``x`` is the weighted average of it, and gradients are taken at
``y = beta * x + (1 - beta) * z``. Parameters are y; x follows from y and z.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from functrain.core.optimizer import OptimizerState, Params
from functrain.errors import ConfigurationError
from functrain.optim.foreach import add_scaled_, constant
from functrain.optim.hyperparameters import is_zero
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots


class Averaged(Protocol):
    """The properties of an optimizer that the average needs."""

    @property
    def warmup_steps(self) -> int: ...
    @property
    def r(self) -> float: ...
    @property
    def weight_lr_power(self) -> float: ...


def initial(device: torch.device | None) -> Scalars:
    """Return the sum of the weights of z in the average, and the largest lr so far."""
    # In float32 a sum of a million small weights would no longer grow.
    zero = torch.zeros((), dtype=torch.float64, device=device)
    return {"weight_sum": zero, "lr_max": zero.clone()}


def advanced(optimizer: Averaged, scalars: Scalars, lr: Rate, step: Tensor) -> Scalars:
    """Return them after another update."""
    lr_max = torch.maximum(scalars["lr_max"], _warmed_up(optimizer, lr, step))
    weight_sum = scalars["weight_sum"] + _weight(optimizer, lr_max, step)
    return {"weight_sum": weight_sum, "lr_max": lr_max}


def _warmed_up(optimizer: Averaged, lr: Rate, step: Tensor) -> Tensor:
    return lr * torch.clamp(step / max(1, optimizer.warmup_steps), max=1.0)


def _weight(optimizer: Averaged, lr_max: Tensor, step: Tensor) -> Tensor:
    return step**optimizer.r * lr_max**optimizer.weight_lr_power


def _share(optimizer: Averaged, scalars: Scalars) -> Tensor:
    """Return the share of the new z in the average x."""
    weight = _weight(optimizer, scalars["lr_max"], scalars["step"])
    total = scalars["weight_sum"]
    return torch.where(total > 0, weight / torch.where(total > 0, total, 1.0), 0.0)


def moved(
    optimizer: Averaged,
    beta: float | Tensor,
    direction: Tensor,
    z: Tensor,
    param: Tensor,
    lr: Rate,
    scalars: Scalars,
) -> tuple[Tensor, Slots]:
    """Return y and z after a step of z; x is not kept, it is ``(y - (1 - beta) z) / beta``."""
    share, lr = _share(optimizer, scalars), _warmed_up(optimizer, lr, scalars["step"])
    y = param + share * (z - param) + lr * (beta * (1 - share) - 1) * direction
    return y, {"z": z - lr * direction}


def factors(
    optimizer: Averaged, beta: float | Tensor, params: Leaves, lr: Rate, scalars: Scalars
) -> tuple[Rate, Rate, Rate]:
    """Return the factors of z - y and of the direction in y, and of the direction in z."""
    scalars = {**scalars, "step": scalars["step"].double()}
    share, lr = _share(optimizer, scalars), _warmed_up(optimizer, lr, scalars["step"])
    along_y = lr * (beta * (1 - share) - 1)
    return constant(share, params), constant(along_y, params), constant(-lr, params)


def move_(
    params: Leaves, zs: Leaves, directions: Leaves, towards_z: Rate, along_y: Rate, along_z: Rate
) -> None:
    """Do what `moved` does to lists of tensors, by the numbers that `factors` gave."""
    add_scaled_(params, list(torch._foreach_sub(zs, params)), towards_z)
    add_scaled_(params, directions, along_y)
    add_scaled_(zs, directions, along_z)


def average(beta: float | Tensor, state: OptimizerState, params: Params) -> Params:
    """Return x, of parameters y and a state with z."""
    share = 1 - 1 / beta
    return {path: y + share * (state["z"][path] - y) for path, y in params.items()}


def check_interpolation(optimizer: Averaged, name: str, value: float | Tensor) -> None:
    """Refuse a beta of 0, with which y is z and says nothing of x."""
    if is_zero(value):
        raise ConfigurationError(
            f"{type(optimizer).__name__}: {name}: expected a number above 0, since evaluation "
            "could not tell the average from the parameters otherwise; got 0"
        )
