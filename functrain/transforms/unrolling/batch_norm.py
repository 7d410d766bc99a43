"""Batch norm with all its derivatives.

Torch's own has none with respect to running statistics, which training changes: a loss in
evaluation mode would depend on them in value and not in gradient.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain.errors import UnsupportedError

_SIGNATURE = inspect.signature(F.batch_norm)
_WITHOUT_DERIVATIVE: dict[Any, str] = {
    F.instance_norm: "torch.nn.functional.instance_norm",
    torch.batch_norm: "torch.batch_norm",
    torch.instance_norm: "torch.instance_norm",
    torch.native_batch_norm: "torch.native_batch_norm",
}


class BatchNormByFormula(TorchFunctionMode):
    """Within it batch norm is computed by operations that can be differentiated."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace batch norm, and refuse its relatives where they have running statistics."""
        kwargs = kwargs or {}
        if func is F.batch_norm:
            given = _SIGNATURE.bind(*args, **kwargs)
            given.apply_defaults()
            return _batch_norm(**given.arguments)
        if func in _WITHOUT_DERIVATIVE:
            _refuse_statistics(func, args, kwargs)
        return func(*args, **kwargs)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    count = input.numel() // max(1, input.shape[1])
    if training and count < 2:  # torch's message
        return F.batch_norm(input, None, None, weight, bias, True, momentum, eps)
    mean, var = running_mean, running_var
    # Torch computes in float32 at least: statistics in bf16 would have its 8 bits.
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    if training:
        var, mean = torch.var_mean(wide, [d for d in range(input.ndim) if d != 1], correction=0)
        if running_mean is not None and running_var is not None:
            _move(running_mean, mean, momentum)
            _move(running_var, var * (count / (count - 1)), momentum)
    if mean is None or var is None:  # torch's message
        return F.batch_norm(input, mean, var, weight, bias, False, momentum, eps)

    def column(values: Tensor) -> Tensor:
        return values.reshape(1, -1, *[1] * (input.ndim - 2))

    scale = torch.rsqrt(var + eps)
    out = (wide - column(mean)) * column(scale if weight is None else scale * weight)
    out = out if bias is None else out + column(bias)
    return out.to(input.dtype)


def _move(running: Tensor, seen: Tensor, momentum: float) -> None:
    running.mul_(1 - momentum).add_(momentum * seen.to(running.dtype))


def _refuse_statistics(func: Any, args: Any, kwargs: Any) -> None:
    given = [*args[1:5], *(kwargs.get(name) for name in ("running_mean", "running_var"))]
    at = slice(0, 2) if func is F.instance_norm else slice(2, 4)
    if any(isinstance(one, Tensor) for one in [*given[at], *given[-2:]]):
        raise UnsupportedError(
            f"{_WITHOUT_DERIVATIVE[func]} with running statistics has no derivative for them. Use "
            "nn.BatchNorm, or track_running_stats=False"
        )
