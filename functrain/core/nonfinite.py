"""Steps whose loss or gradients are NaN or infinite.

A skipped step changes nothing but the loss scale and the count of skipped steps. Where the host
knows it early the update is not made; where the host must not wait for the device, old or new
values are chosen there, leaf by leaf.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from functrain.core import precision
from functrain.core.recipe import Recipe
from functrain.core.state import Tensors
from functrain.errors import NonFiniteError

DeviceState = dict[str, Any]
# Steps in a row that may overflow at the least loss scale.
_PATIENCE = 20
_CHOSEN = ("params", "buffers", "optimizer", "ema")


def finite(outputs: dict[str, Any]) -> Tensor:
    """Whether a step may be applied: bool scalar on the device.

    The norm of all gradients is finite only if each of them is, so one number tells for all.

    Example:
        >>> finite({"loss": torch.tensor(1.0), "grad_norm": torch.tensor(float("inf"))})
        tensor(False)
    """
    return torch.isfinite(outputs["grad_norm"]) & torch.isfinite(outputs["loss"])


def finite_on_host(recipe: Recipe, outputs: dict[str, Any]) -> bool | Tensor:
    """Return the same as a bool where the host may ask; a tensor where the device must choose.

    The host may ask the CPU at no cost, and must ask any device before it can raise.
    """
    norm = outputs["grad_norm"]
    if norm.is_cpu or recipe.nonfinite == "raise":
        return math.isfinite(norm.item()) and math.isfinite(outputs["loss"].item())
    return finite(outputs)


def selected(
    finite: bool | Tensor, new: DeviceState, old: DeviceState, loss: Tensor
) -> DeviceState:
    """Return ``new`` where the step was finite, else ``old``; a tensor chooses on the device.

    The loss scale follows from what was chosen, as does the count of skipped steps.
    """
    scale = old["loss_scale"]
    if finite is True and scale is None:
        return new
    if isinstance(finite, Tensor):
        which = finite
        new = {**new, **{name: chosen(which, new[name], old[name]) for name in _CHOSEN}}
    else:
        which = torch.full_like(old["skipped"], finite, dtype=torch.bool)
    if scale is not None:
        scale = precision.next_loss_scale(scale, which, ~which & torch.isfinite(loss))
    return {**new, "loss_scale": scale, "skipped": old["skipped"] + ~which}


def skipped(state: DeviceState, loss: Tensor) -> DeviceState:
    """Return the state as it was, except the loss scale and the count of skipped steps."""
    return selected(False, state, state, loss)


def chosen(which: Tensor, new: Any, old: Any) -> Any:
    """One of two trees of the same structure, chosen on the device.

    Entries that ``old`` lacks are taken from ``new``: the scalars of a parameter that was skipped
    first in this step, which are the same either way.
    """
    if isinstance(new, dict):
        return {
            key: chosen(which, child, old[key]) if key in old else child
            for key, child in new.items()
        }
    if new is old or not isinstance(new, Tensor):
        return new
    if new.shape != old.shape or new.dtype != old.dtype:  # a buffer that the forward changed
        return new if bool(which) else old
    return torch.where(which, new, old)


def is_recoverable(outputs: dict[str, Any], loss_scale: Tensors | None) -> bool:
    """Whether a run may go on after a step; waits for the device.

    Gradients that overflow under a scale of fp16 that can still be lowered are how the scale is
    found, not a failure.
    """
    if bool(outputs["finite"] if "finite" in outputs else finite(outputs)):
        return True
    overflow = loss_scale is not None and bool(loss_scale["scale"] > precision.LEAST_SCALE)
    return overflow and math.isfinite(outputs["loss"].item())


def refuse_stuck(step: int, outputs: dict[str, Any], loss_scale: Tensors | None) -> None:
    """Refuse to skip on, where gradients overflow step after step at the least loss scale.

    Only a CPU is asked: the host would have to wait for any other device.
    """
    count = None if loss_scale is None else loss_scale["good_steps"]
    if count is not None and count.is_cpu and count.item() <= -_PATIENCE:
        raise NonFiniteError(step, outputs["loss"].item(), [], overflows=_PATIENCE)
