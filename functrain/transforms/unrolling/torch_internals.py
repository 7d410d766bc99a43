"""Parts of torch that differentiable training uses and that are not public."""

from __future__ import annotations

from typing import Any

import torch
import torch.autograd.forward_ad


def is_transforming() -> bool:
    """Return whether this code runs under ``torch.func`` or in forward mode."""
    functorch: Any = torch._C._functorch
    return (
        functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0
    )
