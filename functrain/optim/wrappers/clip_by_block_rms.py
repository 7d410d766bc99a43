"""Clipping of each leaf by its root mean square."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import an_optimizer, positive
from functrain.optim.wrappers.norms import norm
from functrain.optim.wrapping import Wrapper


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
