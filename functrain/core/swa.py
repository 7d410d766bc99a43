"""The mean of the parameters since a step: stochastic weight averaging.

After Izmailov et al., 2018, "Averaging Weights Leads to Wider Optima and Better Generalization";
the update is that of ``torch.optim.swa_utils.get_swa_multi_avg_fn``.
"""

from __future__ import annotations

from numbers import Integral

import attrs
from torch import Tensor

from functrain.core.ema import Average
from functrain.core.precision import widest
from functrain.errors.validators import integer


@attrs.frozen
class SWA(Average):
    """The mean of the parameters after several steps, all with the same weight.

    Attributes:
        start: the first step (counted from 1) whose parameters count. Until then the average is a
            copy of the parameters.
        every: parameters are taken every so many steps.

    Example:
        >>> import torch
        >>> swa = SWA(start=3)
        >>> state = swa.init({"w": torch.zeros(())})
        >>> for value in (1.0, 2.0, 3.0, 5.0):
        ...     state = swa.update(state, {"w": torch.tensor(value)})
        >>> state["params"]["w"]  # the mean of 3 and 5
        tensor(4.)
    """

    start: int = attrs.field(default=1, validator=integer(minimum=1, kind=Integral))
    every: int = attrs.field(default=1, validator=integer(minimum=1, kind=Integral))

    def weight(self, updates: Tensor) -> Tensor:
        """Return 1 up to the first update that counts, and then 1/2, 1/3, ..."""
        first = -(-self.start // self.every) - 1
        return 1 / ((updates - first).clamp(min=0) + 1).to(widest(updates.device))
