"""Gradient noise: normal random numbers as a pure function of a key, a count and an index.

Pair j of a stream comes from two 32-bit hashes of j by the transformation of Box and Muller
(1958). All integers are kept below 2**63 in int64, so that nothing overflows and every compiler
gives the same bits.
"""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.core.rng import derive
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import an_optimizer, not_negative, whole
from functrain.optim.wrapping import Wrapper

_MASK32 = (1 << 32) - 1
_PIECE = 1 << 15
"""Pairs at a time on the CPU: what a piece needs stays in the cache, which takes half the time."""


@explained
@attrs.frozen
class AddNoise(Wrapper):
    """Add normal noise to the gradients, less with every update (Neelakantan et al., 2015).

    At update t, counted from 0, its variance is ``eta / (1 + t)**gamma``, as
    ``optax.add_noise``; that of a complex number is shared by its two parts. The noise is a
    function of the seed, the leaf's path, the update and the index in the leaf: no generator is
    drawn from, and a resumed run has the noise of one that was never stopped. The state keeps a
    key for each leaf, made of seed and path, so a seed changed later has no effect on it.

    Args:
        optimizer: what updates by the gradients.
        eta: variance at the first update.
        gamma: how fast it falls; the paper has 0.55.
        seed: names the noise.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> from functrain.optim import SGD
        >>> noisy = AddNoise(SGD(lr=1.0), eta=0.01)
        >>> params, grads = {"w": torch.zeros(1000)}, {"w": torch.zeros(1000)}
        >>> params, state = noisy.update(grads, noisy.init(params), params, 1.0)
        >>> round(params["w"].std().item(), 1)
        0.1
    """

    optimizer: Optimizer = attrs.field(validator=an_optimizer)
    eta: float | Tensor = attrs.field(validator=not_negative)
    gamma: float | Tensor = attrs.field(default=0.55, validator=not_negative)
    seed: int = attrs.field(default=0, validator=whole)

    leafwise: ClassVar[bool] = True

    def init_own(self, params: Params) -> OptimizerState:
        """Return the count of updates, and the keys."""
        device = next((param.device for param in params.values()), None)
        keys = {
            path: torch.tensor(derive(self.seed, "gradient noise", path), device=param.device)
            for path, param in params.items()
        }
        return {"count": torch.zeros((), dtype=torch.int64, device=device), "key": keys}

    def regrad(
        self, grads: Params, own: OptimizerState, params: Params
    ) -> tuple[Params, OptimizerState]:
        """Return the gradients with noise."""
        count = own["count"] + 1
        scale = (self.eta / count.double() ** self.gamma) ** 0.5
        noisy = {path: _noisy(grad, own["key"][path], count, scale) for path, grad in grads.items()}
        return noisy, {**own, "count": count}


def _noisy(grad: Tensor, key: Tensor, count: Tensor, scale: Tensor) -> Tensor:
    if grad.is_complex():
        real = torch.view_as_real(grad.resolve_conj())
        return torch.view_as_complex(_noisy(real, key, count, scale * 0.5**0.5).contiguous())
    wide = torch.promote_types(grad.dtype, torch.float32)
    noise = normal(key, count.to(key.device), grad.numel(), wide).view(grad.shape)
    return torch.addcmul(grad.to(wide), noise, scale.to(key.device, wide)).to(grad.dtype)


def normal(key: Tensor, count: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return independent numbers from the standard normal distribution.

    Args:
        key: names the stream; 0-dim int64, from 0 to 2**63 - 1.
        count: which block of that stream; 0-dim int64, from 0 to 2**32 - 1.
        size: how many, at most 2**33. A shorter call returns the first numbers of a longer one.
        dtype: float32 or float64; the numbers have 32 random bits in both.

    Returns:
        A tensor of shape [size] on the device of `key`.

    Example:
        >>> normal(torch.tensor(7), torch.tensor(1), 3, torch.float32)
        tensor([...])
    """
    low, high = key & _MASK32, key >> 32
    first = _mixed(_mixed(count, low), high)
    streams = first, _mixed(first, low), _mixed(first, ~low & _MASK32)
    pairs = (size + 1) // 2
    if torch.compiler.is_compiling() or not key.is_cpu or pairs <= _PIECE:
        return _normal(streams, 0, pairs, dtype)[:size]
    starts = range(0, pairs, _PIECE)
    pieces = [_normal(streams, start, min(start + _PIECE, pairs), dtype) for start in starts]
    return torch.cat(pieces)[:size]


def _normal(
    streams: tuple[Tensor, Tensor, Tensor], start: int, stop: int, dtype: torch.dtype
) -> Tensor:
    numbers = torch.arange(start, stop, device=streams[0].device)
    # Hashed twice: of one keyed hash every stream would be the same numbers in another order.
    hashed = _mixed(numbers, streams[0])
    uniform, turn = (_mixed(hashed, stream).to(dtype) for stream in streams[1:])
    radius = uniform.add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = turn.mul_(2 * math.pi * 2.0**-32)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1).flatten()


def _mixed(numbers: Tensor, key: Tensor) -> Tensor:
    """Mix 32-bit numbers with a key into 32 bits.

    Shifts and multipliers (of 31 bits at most) are those of Chris Wellons' hash-prospector
    (16 21f0aaad 15 735a2d97 15).
    """
    mixed = numbers ^ key
    mixed ^= mixed >> 16
    mixed.mul_(0x21F0AAAD).bitwise_and_(_MASK32)
    mixed ^= mixed >> 15
    mixed.mul_(0x735A2D97).bitwise_and_(_MASK32)
    mixed ^= mixed >> 15
    return mixed
