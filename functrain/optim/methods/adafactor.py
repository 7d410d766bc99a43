"""Adafactor: the second moments of a matrix by its rows and columns."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate, OptimizerState, Params
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import (
    as_tuple,
    at_least_one,
    epsilons,
    flag,
    is_zero,
    not_negative,
    not_positive,
    rate,
)
from functrain.optim.leaf_rule import Rate, Scalars, Slots, zeros_like
from functrain.optim.leafwise import Leafwise

Epsilons = tuple[float | Tensor | None, float | Tensor]


@explained
@attrs.frozen
class Adafactor(Leafwise):
    """Adafactor (Shazeer & Stern, 2018), as ``torch.optim.Adafactor``.

    Of a tensor with two dimensions or more only the means of the squared gradient over the last
    and over the last but one dimension are kept: for a matrix of m x n, m + n numbers. The step
    is relative to the size of the parameter; lr is an upper bound of ``1 / sqrt(step)``.

    Args:
        lr: bound of the relative step size, or a schedule of it.
        beta2_decay: the second moments take in ``step**beta2_decay`` of a new gradient.
        eps: floor of the root of the second moments (``None``: the dtype's machine epsilon), and
            of the root mean square of a parameter.
        d: bound of the root mean square of a step before it is scaled.
        weight_decay: how much of a parameter, times lr, every update takes away.
        maximize: whether to ascend.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> adafactor = Adafactor(lr=0.1)
        >>> state = adafactor.init({"w": torch.ones(3, 2), "b": torch.ones(2)})
        >>> {slot: {path: tuple(x.shape) for path, x in state[slot].items()} for slot in state if
        ...  slot != "step"}
        {'row_var': {'w': (3, 1)}, 'col_var': {'w': (1, 2)}, 'variance': {'b': (2,)}}
    """

    lr: LearningRate = attrs.field(default=1e-2, validator=rate)
    beta2_decay: float | Tensor = attrs.field(default=-0.8, validator=not_positive)
    eps: Epsilons = attrs.field(default=(None, 1e-3), converter=as_tuple, validator=epsilons)
    d: float | Tensor = attrs.field(default=1.0, validator=at_least_one)
    weight_decay: float | Tensor = attrs.field(default=0.0, validator=not_negative)
    maximize: bool = attrs.field(default=False, validator=flag)

    slots = ("row_var", "col_var", "variance")  # the last one of vectors, the others of the rest

    def init(self, params: Params) -> OptimizerState:
        """Return zero factors.

        Raises:
            ConfigurationError: a parameter is complex.
        """
        for path, param in params.items():
            if param.is_complex():
                raise ConfigurationError(
                    f"Adafactor is not defined for complex parameters, and {path!r} is of "
                    f"{param.dtype}: give it another optimizer by functrain.optim.groups"
                )
        return Leafwise.init(self, params)

    def init_leaf(self, param: Tensor) -> Slots:
        """Return a row and a column of zeros, or for a vector zeros like it."""
        if param.ndim < 2:
            return {"variance": zeros_like(param)}
        return {"row_var": zeros_like(param[..., :1]), "col_var": zeros_like(param[..., :1, :])}

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the gradient over its root second moment, relative to the parameter."""
        if self.maximize:
            grad = -grad
        eps1, eps2 = self.eps
        floor = torch.finfo(param.dtype).eps if eps1 is None else eps1
        step = scalars["step"]
        step_size = torch.clamp(_rms(param), min=eps2) * torch.clamp(step**-0.5, max=lr)
        if not is_zero(self.weight_decay):
            param = param * (1 - lr * self.weight_decay)

        new, second_moment = _second_moment(grad, slots, step**self.beta2_decay, floor)
        # The floor is that of the root.
        direction = grad * torch.clamp(second_moment, min=floor * floor).rsqrt()
        clip = torch.clamp(_rms(direction) / self.d, min=1.0)
        return param - step_size / clip * direction, new


def _second_moment(
    grad: Tensor, slots: Slots, weight: Tensor, floor: float | Tensor
) -> tuple[Slots, Tensor]:
    square = grad * grad
    if grad.ndim < 2:
        variance = slots["variance"] + weight * (square - slots["variance"])
        return {"variance": variance}, variance
    row, col = slots["row_var"], slots["col_var"]
    row = row + weight * (square.mean(dim=-1, keepdim=True) - row)
    col = col + weight * (square.mean(dim=-2, keepdim=True) - col)
    scale = torch.clamp(row.mean(dim=-2, keepdim=True), min=floor)
    return {"row_var": row, "col_var": col}, row * col / scale


def _rms(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor)
    return norm / math.sqrt(tensor.numel())
