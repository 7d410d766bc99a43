"""Numerical precision of a step: autocast, and the dynamic loss scale of fp16.

The scale follows ``torch.amp.GradScaler`` with its defaults: it starts at 65536, doubles after
2000 good steps in a row and halves on overflow. Unlike there it is part of the state, so it is
saved, resumed and forked like everything else; a loss that is not finite, which no scale helps,
leaves it as it is; and it stays at 1 or above, as that of DeepSpeed does.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from functrain.core.state import Tensors
from functrain.errors.validators import one_of

# Whether code runs in a block with a lent module, whose autocast is that of a program.
is_lending: ContextVar[bool] = ContextVar("is_lending", default=False)

INITIAL_SCALE = 65536.0
GROWTH = 2.0
BACKOFF = 0.5
GROWTH_INTERVAL = 2000
LEAST_SCALE, LARGEST_SCALE = 1.0, 2.0**127

Precision: TypeAlias = Literal["float32", "bf16", "fp16"]
"""The dtype of the forward pass."""

PrecisionName: TypeAlias = Precision | Literal["bfloat16", "float16"]
"""What users may write; programs and checkpoints keep the short names."""

_LONG_NAMES: dict[str, Precision] = {"bfloat16": "bf16", "float16": "fp16"}
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def as_precision(name: PrecisionName) -> Precision:
    """Return the precision of a name.

    Example:
        >>> as_precision("bfloat16"), as_precision("fp16")
        ('bf16', 'fp16')
    """
    one_of(Precision, *_LONG_NAMES).check("precision", name)
    return _LONG_NAMES.get(name, cast(Precision, name))


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which the forward runs.

    Torch would keep the cast of a parameter for the whole context, and use it after an update of
    the parameter, as in a loss with an inner optimizer. So each use of a parameter casts it again.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, _DTYPES[precision], cache_enabled=False)


def widest(device: torch.device) -> torch.dtype:
    """Return the floating-point type for sums and rates: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def summed_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which tensors of a dtype are scaled, summed and averaged."""
    return torch.promote_types(dtype, torch.float32)


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor of 16 bits in float32, which holds a loss scale or a count of tokens."""
    return tensor.to(summed_dtype(tensor.dtype))


def initial_loss_scale(precision: Precision, device: torch.device) -> Tensors | None:
    """Return ``{"scale", "good_steps"}`` for fp16; ``None`` for precisions that need none."""
    if precision != "fp16":
        return None
    return {
        "scale": torch.tensor(INITIAL_SCALE, device=device),
        "good_steps": torch.zeros((), dtype=torch.int32, device=device),
    }


def next_loss_scale(loss_scale: Tensors, finite: Tensor, overflow: Tensor) -> Tensors:
    """Return the scale after a step that was finite, or whose gradients alone were not.

    The scale is doubled after 2000 finite steps in a row, halved after an overflow, else kept.
    Below 0, ``good_steps`` counts the overflows in a row at the least scale.

    Example:
        >>> state = initial_loss_scale("fp16", torch.device("cpu"))
        >>> next_loss_scale(state, torch.tensor(False), torch.tensor(True))["scale"]
        tensor(32768.)
    """
    scale, good = loss_scale["scale"], loss_scale["good_steps"]
    grows = finite & (good + 1 >= GROWTH_INTERVAL)
    stuck = overflow & (scale <= LEAST_SCALE)
    factor = torch.where(grows, GROWTH, torch.where(overflow, BACKOFF, 1.0))
    counted = torch.where(finite, good.clamp(min=0) + 1, good)
    counted = torch.where(stuck, good.clamp(max=0) - 1, counted)
    return {
        "scale": (scale * factor).clamp(LEAST_SCALE, LARGEST_SCALE),
        "good_steps": counted.masked_fill(grows | (overflow & ~stuck), 0),
    }
