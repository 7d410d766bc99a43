"""Bound the gradient of each unit, or the update of each leaf."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import an_optimizer, not_negative, positive
from functrain.optim.wrapping import Wrapper


@explained
@attrs.frozen
class AdaptiveGradClip(Wrapper):
    """Clip the gradient of each unit to a share of the unit's own norm (Brock et al., 2021).

    With the norms of a unit's gradient and weights, ``g * min(1, clipping * max(|w|, eps) /
    |g|)``. A unit is an index of the first dimension, an output in torch's layout; a leaf with
    fewer than two dimensions is one unit. As ``optax.adaptive_grad_clip``, which has outputs
    in the last dimension, and takes a matrix with one row or column as one unit. The paper
    leaves the last linear layer out, which ``groups`` can do.

    Args:
        optimizer: what updates by the gradients.
        clipping: largest ratio of the norm of the gradient to that of the weights, above 0.
        eps: least norm of the weights that counts, so that those at zero can grow.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> from functrain.optim import SGD
        >>> clipped = AdaptiveGradClip(SGD(lr=1.0), clipping=0.1)
        >>> params, grads = {"w": torch.tensor([[3.0, 4.0]])}, {"w": torch.tensor([[0.0, 9.0]])}
        >>> params, state = clipped.update(grads, clipped.init(params), params, 1.0)
        >>> params["w"]
        tensor([[3.0000, 3.5000]])
    """

    optimizer: Optimizer = attrs.field(validator=an_optimizer)
    clipping: float | Tensor = attrs.field(validator=positive)
    eps: float | Tensor = attrs.field(default=1e-3, validator=not_negative)

    leafwise: ClassVar[bool] = True

    def regrad(
        self, grads: Params, own: OptimizerState, params: Params
    ) -> tuple[Params, OptimizerState]:
        """Return the clipped gradients."""
        return {path: self._clipped(grad, params[path]) for path, grad in grads.items()}, own

    def _clipped(self, grad: Tensor, param: Tensor) -> Tensor:
        grad_norm = norm(grad, unitwise=True)
        max_norm = self.clipping * torch.clamp(norm(param, unitwise=True), min=self.eps)
        large = grad_norm > max_norm
        # The branch not taken is finite too, or a gradient of zero would have no derivative.
        factor = torch.where(large, max_norm / torch.where(large, grad_norm, 1.0), 1.0)
        return (grad * factor).to(grad.dtype)


@explained
@attrs.frozen
class ClipByBlockRms(Wrapper):
    """Scale down each leaf's gradient whose root mean square is above a threshold.

    ``g / max(1, rms(g) / threshold)``, leaf by leaf, as ``optax.clip_by_block_rms``; Adafactor
    (Shazeer & Stern, 2018) does so to its updates.

    Args:
        optimizer: what updates by the gradients.
        threshold: largest root mean square of a leaf's gradient, above 0.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> from functrain.optim import SGD
        >>> clipped = ClipByBlockRms(SGD(lr=1.0), threshold=1.0)
        >>> params, grads = {"w": torch.zeros(2)}, {"w": torch.tensor([7.0, 1.0])}
        >>> params, state = clipped.update(grads, clipped.init(params), params, 1.0)
        >>> params["w"]
        tensor([-1.4000, -0.2000])
    """

    optimizer: Optimizer = attrs.field(validator=an_optimizer)
    threshold: float | Tensor = attrs.field(validator=positive)

    leafwise: ClassVar[bool] = True

    def regrad(
        self, grads: Params, own: OptimizerState, params: Params
    ) -> tuple[Params, OptimizerState]:
        """Return the clipped gradients."""
        return {path: self._clipped(grad) for path, grad in grads.items()}, own

    def _clipped(self, grad: Tensor) -> Tensor:
        rms = norm(grad) / math.sqrt(max(grad.numel(), 1))
        return (grad / torch.clamp(rms / self.threshold, min=1.0)).to(grad.dtype)


def norm(leaf: Tensor, unitwise: bool = False) -> Tensor:
    """Return the 2-norm of a leaf.

    Args:
        leaf: of any shape and floating-point or complex dtype.
        unitwise: whether to take one norm for each index of the first dimension, an output of a
            layer in torch's layout; of a leaf with fewer than two dimensions it is still one.

    Returns:
        A real tensor: 0-dim, or of shape [n, 1, ..., 1].

    Example:
        >>> norm(torch.tensor([[3.0, 4.0], [6.0, 8.0]]), unitwise=True)
        tensor([[ 5.],
                [10.]])
    """
    wide = torch.promote_types(leaf.dtype, torch.float32)
    several = unitwise and leaf.ndim > 1
    dims = list(range(1, leaf.ndim)) if several else None
    found: Tensor = torch.linalg.vector_norm(leaf, dim=dims, keepdim=several, dtype=wide)
    return found
