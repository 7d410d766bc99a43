"""One of two states, chosen on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def selected(condition: Tensor, new: Any, old: Any) -> Any:
    """Return a tree that is `new` where the condition holds, else `old`.

    Args:
        condition: a 0-dim bool tensor.
        new: nested dicts of tensors.
        old: the same names, shapes and dtypes. It may lack some: scalars of parameters that the
            update skipped first (see `functrain.optim.counts`), which are the same either way.

    Example:
        >>> selected(torch.tensor(True), {"w": torch.ones(2)}, {"w": torch.zeros(2)})
        {'w': tensor([1., 1.])}
    """
    if isinstance(new, Tensor):
        return new if new is old else torch.where(condition.to(new.device), new, old)
    return {
        name: selected(condition, value, old[name]) if name in old else value
        for name, value in new.items()
    }
