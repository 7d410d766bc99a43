"""Reports of steps whose loss or gradients are not finite."""

from __future__ import annotations

from typing import Any

import torch

from functrain.core.state import Tensors
from functrain.errors import AnomalyWarning, NonFiniteError
from functrain.errors.base import warn


def raise_for(step: int, outputs: dict[str, Any], grads: Tensors, place: str | None = None) -> None:
    """Name the step and the leaves."""
    culprits = [path for path, grad in grads.items() if not bool(torch.isfinite(grad).all())]
    raise NonFiniteError(step, outputs["loss"].item(), culprits, place=place)


def warn_of(step: int, outputs: dict[str, Any], place: str | None, whose: str = "") -> None:
    """Name the step, and where its first NaN or infinity is from."""
    loss, norm = outputs["loss"].item(), outputs["grad_norm"].item()
    warn(
        f"step {step}: the loss{whose} is {loss}, the norm of the gradients {norm}; {place}",
        AnomalyWarning,
    )
