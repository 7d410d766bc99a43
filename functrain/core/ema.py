"""Exponential moving average of the parameters, and their plain average (SWA).

After Polyak & Juditsky (1992); the update is that of ``torch.optim.swa_utils.get_ema_multi_avg_fn``
with its rule that the first update copies. Buffers are not averaged: the averaged weights are
evaluated with the present buffers, as ``AveragedModel(use_buffers=False)`` does.

Averages of 16-bit parameters are kept in float32: in 16 bits, an update would be rounded away.
"""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.precision import widened, widest
from functrain.core.schedule import plain_float
from functrain.core.state import Tensors
from functrain.errors.validators import BOOLEAN, integer, number


@attrs.frozen
class Average:
    """An average of the parameters; a subclass says how much the new ones weigh.

    Attributes:
        count: the entry of the state with the number of updates.
    """

    count: ClassVar[str] = "updates"

    every: int

    def init(self, params: Tensors) -> dict[str, Any]:
        """Return ``{"params": copies, count: 0}`` for the trainable parameters."""
        device = next(iter(params.values())).device
        copies = {path: widened(tensor).clone() for path, tensor in params.items()}
        return {"params": copies, self.count: torch.zeros((), dtype=torch.int64, device=device)}

    def due(self, step: int) -> bool:
        """Whether an update is due at step number ``step`` (counted from 1)."""
        return step % self.every == 0

    def moves(self, ema: dict[str, Any], due: bool | Tensor) -> bool | Tensor:
        """Whether a step writes to the average; a tensor leaves the choice to the device."""
        return due

    def moves_on_host(self, ema: dict[str, Any], due: bool) -> bool | Tensor:
        """Return the same as a bool on the CPU, where the host may ask at no cost."""
        moves = self.moves(ema, due)
        return bool(moves) if isinstance(moves, Tensor) and moves.is_cpu else moves

    def weight(self, updates: Tensor) -> Tensor:
        """Return the weight of the new parameters in update number ``updates`` (from 0)."""
        raise NotImplementedError

    def update(
        self, ema: dict[str, Any], params: Tensors, due: bool | Tensor = True
    ) -> dict[str, Any]:
        """Return the average, moved towards the parameters that it holds.

        ``due`` says whether this step is one of those whose parameters count.
        """
        moves = self.moves(ema, due)
        if moves is False:
            return ema
        old, updates = ema["params"], ema[self.count]
        weight = self.weight(updates)
        new = {p: one.lerp(widened(params[p]), weight.to(one.dtype)) for p, one in old.items()}
        if isinstance(moves, Tensor):
            new = {path: torch.where(moves, new[path], old[path]) for path in old}
        return {"params": new, self.count: updates + due}

    def update_(self, ema: dict[str, Any], params: Tensors, due: bool = True) -> None:
        """Do the same in place on an average that the caller owns."""
        moves = self.moves_on_host(ema, due)
        if moves is False:
            return
        old, updates = ema["params"], ema[self.count]
        if updates.is_cpu:
            # The list form takes one call.
            new = [widened(params[path]) for path in old]
            torch._foreach_lerp_(list(old.values()), new, self.weight(updates).item())
        else:
            for path, moved in self.update(ema, params, due)["params"].items():
                old[path].copy_(moved)
        updates += due


@attrs.frozen
class EMA(Average):
    """How the average is taken.

    Attributes:
        decay: share of the old average kept by an update, in [0, 1].
        every: an update is made every so many steps.
        warmup: let the decay rise as ``min(decay, (1 + n) / (10 + n))`` over updates n, so that
            early averages forget the initial weights (as in TensorFlow's
            ``ExponentialMovingAverage(num_updates=...)``).

    Example:
        >>> EMA(0.999)
        EMA(decay=0.999, every=1, warmup=False)
    """

    decay: float | Tensor = attrs.field(
        default=0.999, converter=plain_float, validator=number(minimum=0, maximum=1, tensors=True)
    )
    every: int = attrs.field(default=1, validator=integer(minimum=1))
    warmup: bool = attrs.field(default=False, validator=BOOLEAN)

    def weight(self, updates: Tensor) -> Tensor:
        """Return the weight of the new parameters in update number ``updates`` (from 0)."""
        n = updates.to(widest(updates.device))
        decay = torch.zeros_like(n) + self.decay
        if self.warmup:
            decay = torch.minimum(decay, (1 + n) / (10 + n))
        return torch.where(updates == 0, 1.0, 1.0 - decay)


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

    start: int = attrs.field(default=1, validator=integer(minimum=1))
    every: int = attrs.field(default=1, validator=integer(minimum=1))

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
