"""Adaptive gradient clipping."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import an_optimizer, not_negative, positive
from functrain.optim.wrappers.norms import norm
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
