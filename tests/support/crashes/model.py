"""A simpler model of the expected content of a run directory."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch

KEEP_LAST, KEEP_BEST, EVERY = 2, 1, 5


@attrs.frozen
class Saved:
    """The checkpoint saved under a step."""

    value: int
    loss: float | None = attrs.field(eq=False)  # (NaN is not equal to itself)

    @property
    def ranks(self) -> bool:
        return self.loss is not None and math.isfinite(self.loss)


def sample(value: int) -> Any:
    return {
        "params": {"w": torch.full((value % 7, 30), float(value)), "b": torch.arange(value % 5)},
        "ema": [torch.tensor(value), (value, None)],
        "value": value,
    }


Model = dict[int, Saved]


def ranked(model: Model) -> list[int]:
    """Steps from best to worst."""
    known = {step: saved.loss for step, saved in model.items() if saved.ranks}
    return sorted(known, key=lambda step: (known[step], step))


def kept(model: Model, just_saved: int | None) -> Model:
    """Return the checkpoints left after retention."""
    steps = {*sorted(model)[-KEEP_LAST:], *ranked(model)[:KEEP_BEST], just_saved}
    steps |= {step for step in model if step % EVERY == 0}
    return {step: saved for step, saved in model.items() if step in steps}
