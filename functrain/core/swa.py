"""The mean of the parameters since a step: stochastic weight averaging.

After Izmailov et al., 2018, "Averaging Weights Leads to Wider Optima and Better Generalization";
the update is that of ``torch.optim.swa_utils.get_swa_multi_avg_fn``.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import attrs
from torch import Tensor

from functrain.core.ema import Average
from functrain.core.precision import widest
from functrain.errors.validators import integer


@attrs.frozen
class SWA(Average):
    """The mean of the parameters after several steps, all with the same weight.

    Batch norms need statistics of their own for it, which :func:`functrain.update_bn` computes.

    Attributes:
        start: the first step (counted from 1) whose parameters count.
        every: parameters are taken at the steps that are divisible by it. Until they are first
            taken, the average is a copy of the parameters after each step.

    Example:
        >>> import torch
        >>> swa = SWA(start=3)
        >>> state = swa.init({"w": torch.zeros(())})
        >>> for step, value in enumerate((1.0, 2.0, 3.0, 5.0), start=1):
        ...     state = swa.update(state, {"w": torch.tensor(value)}, swa.due(step))
        >>> state["params"]["w"]  # the mean of 3 and 5
        tensor(4.)
    """

    count = "n_averaged"  # not that of EMA, whose updates are no parameters of a mean

    start: int = attrs.field(default=1, validator=integer(minimum=1, kind=Integral))
    every: int = attrs.field(default=1, validator=integer(minimum=1, kind=Integral))

    @property
    def always_due(self) -> bool:
        """Whether an update is due at every step."""
        return self.start == self.every == 1

    def due(self, step: int) -> bool:
        """Whether the parameters after step number ``step`` count."""
        return step >= self.start and super().due(step)

    def moves(self, ema: dict[str, Any], due: bool | Tensor) -> bool | Tensor:
        """Whether a step writes to the average: if it counts, or if none has counted yet."""
        # Only the device knows: the steps that were due may all have been skipped.
        return due is True or due | (ema[self.count] == 0)

    def weight(self, updates: Tensor) -> Tensor:
        """Return 1, 1/2, 1/3, ..."""
        return 1 / (updates + 1).to(widest(updates.device))
