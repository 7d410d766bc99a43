"""Functions of torch that compute otherwise under ``vmap``, as formulas of plain operations."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

_ALPHA = 1.7580993408473766  # of SELU: its scale times its alpha


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return what ``torch.nn.functional.dropout`` does.

    Example:
        >>> dropout(torch.ones(2), p=1.0)
        tensor([0., 0.])
    """
    if not training or not 0 < p < 1:
        return F.dropout(input, p, training, inplace)
    noise = _noise(input, p).div_(1 - p)
    return input.mul_(noise) if inplace else input * noise


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Return what ``torch.nn.functional.alpha_dropout`` does."""
    if not training or not 0 < p < 1:
        return F.alpha_dropout(input, p, training, inplace)
    noise, scale = _noise(input, p), 1 / math.sqrt((_ALPHA * _ALPHA * p + 1) * (1 - p))
    shift = noise.add(-1).mul_(_ALPHA * scale).add_(_ALPHA * scale * p)
    noise = noise.mul_(scale)
    return input.mul_(noise).add_(shift) if inplace else input * noise + shift


def _noise(input: Tensor, p: float) -> Tensor:
    return torch.bernoulli(torch.empty_like(input), 1 - p)


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


@contextlib.contextmanager
def mappable() -> Iterator[None]:
    """Let a forward pass call what can be mapped over members.

    Torch's own batch norm would take the channels of all members as those of one tensor, and its
    rounding depends on their number. Fused attention would be called for each member.
    """
    with Formulas(), sdpa_kernel(SDPBackend.MATH):
        yield


class Formulas(TorchFunctionMode):
    """Within it, normalization and dropout consist of operations that can be mapped.

    Example:
        >>> x, mean, var = torch.tensor([[1.0], [3.0]]), torch.zeros(1), torch.ones(1)
        >>> with Formulas():
        ...     F.batch_norm(x, mean, var, training=True, eps=0.0)
        tensor([[-1.],
                [ 1.]])
        >>> mean, var
        (tensor([0.2000]), tensor([1.1000]))
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        formula: Callable[..., Tensor] = _FORMULAS.get(func, func)
        return formula(*args, **(kwargs or {}))


_FORMULAS: dict[Any, Callable[..., Tensor]] = {
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.dropout: dropout,
    F.alpha_dropout: alpha_dropout,
    torch.dropout: lambda input, p, train: dropout(input, p, train),
    torch.dropout_: lambda input, p, train: dropout(input, p, train, inplace=True),
}
