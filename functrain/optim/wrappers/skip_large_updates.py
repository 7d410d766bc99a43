"""Updates left out because the gradients are too large."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Optimizer, OptimizerState, Params
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import an_optimizer, positive
from functrain.optim.wrappers.clipping import global_norm
from functrain.optim.wrapping import Wrapper, selected, write


@explained
@attrs.frozen
class SkipLargeUpdates(Wrapper):
    """Leave out an update whose gradients' common norm is above a bound, or not finite.

    Parameters and the state of the optimizer inside stay as they were, and ``skipped`` in the
    state grows by one. The criterion is that of ``optax.skip_large_updates``, which is given the
    square of the bound and also leaves out a norm that equals it. A program with
    ``nonfinite="raise"`` raises before an optimizer sees gradients that are not finite.

    On the CPU the optimizer inside is asked only where its update counts. On an accelerator it
    always is, and old or new values are chosen there without waiting, at the cost of a copy. One
    whose state grows at its first update (`from_torch`) cannot be chosen from: around it the host
    decides on every device, and an accelerator is waited for.

    Args:
        optimizer: what updates by the gradients.
        max_norm: largest norm of all gradients together, above 0.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> from functrain.optim import SGD
        >>> careful = SkipLargeUpdates(SGD(lr=1.0), max_norm=5.0)
        >>> params, grads = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 5.0])}
        >>> params, state = careful.update(grads, careful.init(params), params, 1.0)
        >>> params["w"], state["skipped"]
        (tensor([0., 0.]), tensor(1))
    """

    optimizer: Optimizer = attrs.field(validator=an_optimizer)
    max_norm: float | Tensor = attrs.field(validator=positive)

    def init_own(self, params: Params) -> OptimizerState:
        """Return the count of updates left out."""
        device = next((param.device for param in params.values()), None)
        return {"skipped": torch.zeros((), dtype=torch.int64, device=device)}

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any
    ) -> tuple[Params, OptimizerState]:
        """Update, and return what was before if the gradients were too large."""
        old, fits = state["optimizer"], self._fits(grads, state)
        skipped = state["skipped"] + ~fits
        if self.lazy_state and not fits:
            return dict(params), {"optimizer": old, "skipped": skipped}
        updated, inner = self.optimizer.update(grads, old, params, lr)
        if not self.lazy_state:
            updated, inner = selected(fits, updated, params), selected(fits, inner, old)
        return updated, {"optimizer": inner, "skipped": skipped}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Do the same in place."""
        with torch.no_grad():
            fits = self._fits(grads, state)
            state["skipped"].add_(~fits)
            if fits.is_cpu or self.lazy_state:
                if fits:
                    self.optimizer.update_(grads, state["optimizer"], params, lr)
                return
            updated, inner = self.optimizer.update(grads, state["optimizer"], params, lr)
            write(selected(fits, updated, params), params)
            write(selected(fits, inner, state["optimizer"]), state["optimizer"])

    def _fits(self, grads: Params, state: OptimizerState) -> Tensor:
        return global_norm(grads.values(), state["skipped"].device) <= self.max_norm
