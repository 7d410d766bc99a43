"""Muon: momentum made orthogonal, for the matrices of hidden layers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import LearningRate, OptimizerState, Params
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import one_of, optional
from functrain.optim.hyperparameters import (
    as_tuple,
    count,
    flag,
    is_zero,
    not_negative,
    rate,
)
from functrain.optim.leaf_rule import Leaves, Rate, Scalars, Slots
from functrain.optim.leafwise import Leafwise

Coefficients = tuple[float, float, float]
ADJUSTMENTS = (None, "original", "match_rms_adamw")


def is_matrix(path: str, param: Tensor) -> bool:
    """Tell whether a parameter is a real matrix, what `Muon` is for; a predicate for `groups`.

    Embeddings and the output layer are matrices, too; Muon's authors give these to AdamW.

    Example:
        >>> from functrain.optim import AdamW, groups
        >>> adamw = AdamW(3e-4)
        >>> optimizer = groups([("head.*", adamw), (is_matrix, Muon(0.02)), ("*", adamw)])
        >>> names = ["blocks.0.weight", "blocks.0.bias", "head.weight"]
        >>> optimizer.assign({n: torch.zeros((4,) if "bias" in n else (4, 4)) for n in names})
        {'blocks.0.weight': '1', 'blocks.0.bias': '2', 'head.weight': '0'}
    """
    return param.ndim == 2 and not param.is_complex()


def _three_numbers(instance: object, attribute: Any, value: object) -> None:
    numbers = value if isinstance(value, tuple) else ()
    if len(numbers) != 3 or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
        raise ConfigurationError(
            f"Muon: ns_coefficients: expected three finite numbers, got {value!r}"
        )


def _below_a_hundred(instance: object, attribute: Any, value: int) -> None:
    if value >= 100:
        raise ConfigurationError(f"Muon: ns_steps: expected a number below 100, got {value}")


@explained
@attrs.frozen
class Muon(Leafwise):
    """Muon (Jordan et al., 2024), as ``torch.optim.Muon``; for matrices only.

    The momentum is brought near to the orthogonal matrix that is nearest to it by Newton-Schulz
    iterations, so that every direction in it counts alike. Give all other parameters, embeddings
    and the output layer to another optimizer by `groups`; see `is_matrix`.

    Args:
        lr: learning rate or schedule.
        weight_decay: how much of a parameter, times lr, every update takes away.
        momentum: decay of the running mean of the gradient.
        nesterov: whether to look ahead along the momentum.
        ns_coefficients: those of the quintic polynomial of an iteration.
        eps: floor of the norm that the momentum is divided by before the iterations.
        ns_steps: how many iterations.
        adjust_lr_fn: what lr is multiplied by for a matrix of A x B: ``None`` or ``"original"``,
            ``sqrt(max(1, A / B))``; ``"match_rms_adamw"``, ``0.2 * sqrt(max(A, B))``, with which
            lr and decay tuned for AdamW may be kept (Liu et al., 2025).
        ns_dtype: dtype of the iterations; ``None`` is the parameter's.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> muon = Muon(lr=0.1, weight_decay=0.0, ns_dtype="float32")
        >>> params = {"w": torch.zeros(2, 2)}
        >>> grads = {"w": torch.tensor([[2.0, 0.0], [0.0, 1.0]])}
        >>> muon.update(grads, muon.init(params), params, 0.1)[0]["w"].round(decimals=2)
        tensor([[-0.0700,  0.0000],
                [ 0.0000, -0.1100]])
    """

    lr: LearningRate = attrs.field(default=1e-3, validator=rate)
    weight_decay: float | Tensor = attrs.field(default=0.1, validator=not_negative)
    momentum: float | Tensor = attrs.field(default=0.95, validator=not_negative)
    nesterov: bool = attrs.field(default=True, validator=flag)
    ns_coefficients: Coefficients = attrs.field(
        default=(3.4445, -4.7750, 2.0315), converter=as_tuple, validator=_three_numbers
    )
    eps: float | Tensor = attrs.field(default=1e-7, validator=not_negative)
    ns_steps: int = attrs.field(default=5, validator=[count, _below_a_hundred])
    adjust_lr_fn: str | None = attrs.field(default=None, validator=one_of(*ADJUSTMENTS))
    ns_dtype: str | None = attrs.field(
        default="bfloat16", validator=optional(one_of("bfloat16", "float32", "float64"))
    )

    counts_each: ClassVar[bool] = False  # no formula has the count
    slots = ("momentum_buffer",)

    def init(self, params: Params) -> OptimizerState:
        """Return zero momentum.

        Raises:
            ConfigurationError: a parameter is no real matrix.
        """
        for path, param in params.items():
            if not is_matrix(path, param):
                raise ConfigurationError(
                    f"Muon is for real matrices, and {path!r} has shape {tuple(param.shape)} and "
                    f"dtype {param.dtype}: give the others another optimizer, as in functrain."
                    "optim.groups([(functrain.optim.is_matrix, Muon(...)), ('*', AdamW(...))])"
                )
        return Leafwise.init(self, params)

    def rule(
        self, grad: Tensor, slots: Slots, param: Tensor, lr: Rate, scalars: Scalars
    ) -> tuple[Tensor, Slots]:
        """Step along the momentum made orthogonal."""
        momentum = self.momentum
        mean = momentum * slots["momentum_buffer"] + (1 - momentum) * grad
        direction = momentum * mean + (1 - momentum) * grad if self.nesterov else mean
        if not is_zero(self.weight_decay):
            param = param * (1 - lr * self.weight_decay)
        step = self._orthogonal(direction).to(param.dtype)
        return param - lr * self._adjustment(*param.shape) * step, {"momentum_buffer": mean}

    def kernel(
        self, grads: Leaves, slots: list[Leaves], params: Leaves, lr: Rate, scalars: Scalars
    ) -> None:
        """Do what ``torch.optim.Muon`` does; only the iterations go matrix by matrix."""
        means, momentum = slots[0], self.momentum
        torch._foreach_lerp_(means, grads, 1 - momentum)  # type: ignore[arg-type]
        directions = torch._foreach_lerp(grads, means, momentum) if self.nesterov else means  # type: ignore[arg-type]
        for param, direction in zip(params, directions, strict=True):
            param.mul_(1 - lr * self.weight_decay)
            step_size = lr * self._adjustment(*param.shape)
            step = self._orthogonal(direction)
            if isinstance(step_size, Tensor):
                param.sub_(step_size * step.to(param.dtype))
            else:
                param.add_(step, alpha=-step_size)

    def _adjustment(self, rows: int, columns: int) -> float:
        if self.adjust_lr_fn == "match_rms_adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        return math.sqrt(max(1, rows / max(1, columns)))

    def _orthogonal(self, matrix: Tensor) -> Tensor:
        """Return U S V^T for a matrix U D V^T, with S near 1 (from 0.7 to 1.2 by default)."""
        a, b, c = self.ns_coefficients
        x = matrix if self.ns_dtype is None else matrix.to(getattr(torch, self.ns_dtype))
        tall = matrix.shape[0] > matrix.shape[1]
        x = x.mT if tall else x
        x = x / torch.clamp(torch.linalg.matrix_norm(x), min=self.eps)
        for _ in range(self.ns_steps):
            gram = x @ x.mT
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.mT if tall else x
