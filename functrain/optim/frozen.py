"""The optimizer of parameters that are not trained."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.errors.calls import explained


@explained
@attrs.frozen
class Frozen(Optimizer):
    """The group of parameters that are not trained: no gradient, no state, no learning rate.

    Example:
        >>> import torch
        >>> Frozen().init({"w": torch.zeros(2)})
        {}
    """

    elementwise: ClassVar[bool] = True

    @property
    def lr(self) -> float:
        """Zero, for code that shows one learning rate a group."""
        return 0.0

    def trained(self, params: Params) -> list[str]:
        """Return no path."""
        return []

    def init(self, params: Params) -> OptimizerState:
        """Return an empty state."""
        return {}

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any = 0.0
    ) -> tuple[Params, OptimizerState]:
        """Return everything as it was."""
        return dict(params), {}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any = 0.0) -> None:
        """Do nothing."""
