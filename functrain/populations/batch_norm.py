"""Batch and instance normalization as formulas of plain operations.

Torch's kernels have no derivative of the running statistics, and under ``vmap`` their rounding
depends on how many tensors are mapped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return what ``torch.nn.functional.batch_norm`` does; it moves the running statistics, too."""
    if training:
        F._verify_batch_size(input.size())  # type: ignore[attr-defined]
    dims = [0, *range(2, input.ndim)]
    if training or running_mean is None or running_var is None:
        count = input.numel() // input.shape[1]
        mean, var = _moments(input, dims)
        if running_mean is not None and running_var is not None:
            unbiased = var * (count / (count - 1))
            running_mean.copy_(momentum * mean.flatten() + (1 - momentum) * running_mean)
            running_var.copy_(momentum * unbiased.flatten() + (1 - momentum) * running_var)
    else:
        shape = [1, -1, *[1] * (input.ndim - 2)]
        mean, var = running_mean.reshape(shape), running_var.reshape(shape)
    return _normalized(input, mean, var, weight, bias, eps)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return what ``torch.nn.functional.instance_norm`` does."""
    statistics = running_mean, running_var
    if not use_input_stats:
        return batch_norm(input, *statistics, weight, bias, False, momentum, eps)
    F._verify_spatial_size(input.size())  # type: ignore[attr-defined]
    mean, var = _moments(input, list(range(2, input.ndim)))
    if running_mean is not None and running_var is not None:
        count = input[0, 0].numel()
        unbiased = var * (count / (count - 1))
        for running, now in ((running_mean, mean), (running_var, unbiased)):
            running.copy_(momentum * now.mean(0).flatten() + (1 - momentum) * running)
    return _normalized(input, mean, var, weight, bias, eps)


def _moments(input: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    mean = input.mean(dims, keepdim=True)
    return mean, (input - mean).square().mean(dims, keepdim=True)


def _normalized(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    shape = [1, -1, *[1] * (input.ndim - 2)]
    normal = (input - mean) * torch.rsqrt(var + eps)
    if weight is not None:
        normal = normal * weight.reshape(shape)
    return normal if bias is None else normal + bias.reshape(shape)
