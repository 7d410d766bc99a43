"""Gradient centralization."""

from __future__ import annotations

from typing import ClassVar

import attrs
from torch import Tensor

from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import an_optimizer
from functrain.optim.wrapping import Wrapper


@explained
@attrs.frozen
class Centralize(Wrapper):
    """Subtract from the gradient of each unit of a layer its mean (Yong et al., 2020).

    A unit is an index of the first dimension, an output in torch's layout: ``g - mean(g)`` over
    all dimensions but the first. Leaves with fewer than two dimensions are left alone. The same
    numbers as ``optax.centralize``.

    Args:
        optimizer: what updates by the gradients.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> import torch
        >>> from functrain.optim import SGD
        >>> centralized = Centralize(SGD(lr=1.0))
        >>> params, grads = {"w": torch.zeros(1, 3)}, {"w": torch.tensor([[1.0, 2.0, 6.0]])}
        >>> params, state = centralized.update(grads, centralized.init(params), params, 1.0)
        >>> params["w"]
        tensor([[ 2.,  1., -3.]])
    """

    optimizer: Optimizer = attrs.field(validator=an_optimizer)

    leafwise: ClassVar[bool] = True

    def regrad(
        self, grads: Params, own: OptimizerState, params: Params
    ) -> tuple[Params, OptimizerState]:
        """Return the gradients without their means."""
        return {path: _centralized(grad) for path, grad in grads.items()}, own


def _centralized(grad: Tensor) -> Tensor:
    if grad.ndim < 2:
        return grad
    return grad - grad.mean(dim=list(range(1, grad.ndim)), keepdim=True)
