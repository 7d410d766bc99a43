"""Dropout under ``vmap`` that draws in the memory order of its input.

Torch's own, below ``vmap``, draws into a tensor without strides, so a member would get another mask
than alone where the input is not contiguous, as after a transposition.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


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


_ALPHA = 1.7580993408473766  # of SELU: its scale times its alpha
