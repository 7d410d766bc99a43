"""Gradient noise."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.core.rng import derive
from functrain.optim.hyperparameters import not_negative, whole
from functrain.optim.wrappers.noise import normal
from functrain.optim.wrappers.validators import an_optimizer
from functrain.optim.wrapping import Wrapper


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
