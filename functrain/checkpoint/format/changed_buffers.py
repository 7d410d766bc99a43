"""Buffers that change their shape or dtype as a model is used: whether a saved one fits.

A buffer of another shape is either one that the forward gave its shape (per-channel observers,
membrane potentials, running caches), or one of another model with the same parameters (a table of
positions of another length). A run notes what its buffers began as; a state that was saved by
itself has no such note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.records import Declared
from functrain.checkpoint.format.scalars import Json
from functrain.core.buffers import may_become

# What each buffer began as in the run that was saved: ``{"shape": [1], "dtype": "float32"}``.
Began = Mapping[str, Any]


def noted(info: Any) -> Began:
    """Return what a run noted of its buffers; empty for checkpoints of other origin."""
    found = info.get("buffers") if isinstance(info, dict) else None
    return found if isinstance(found, dict) else {}


def described(buffer: Tensor) -> dict[str, Any]:
    """Return what a run notes of a buffer.

    Example:
        >>> import torch
        >>> described(torch.zeros(2, 0))
        {'shape': [2, 0], 'dtype': 'float32'}
    """
    return {"shape": list(buffer.shape), "dtype": dtype_name(buffer.dtype)}


def changed_by_use(
    buffers: Mapping[str, Any], saved: Mapping[str, Json], leaves: Sequence[Declared], began: Began
) -> set[str]:
    """Return the names of the saved buffers that a run may have made of those expected.

    Args:
        buffers: those expected, by name.
        saved: the structure of those in the checkpoint, by name.
        leaves: dtype and shape of the tensors in the checkpoint.
        began: what the run noted.
    """
    pairs = {name: (buffer, saved.get(name)) for name, buffer in buffers.items()}
    return {
        name
        for name, (buffer, json) in pairs.items()
        if isinstance(buffer, Tensor) and type(json) is dict and "$tensor" in json
        if _may_be_of(buffer, leaves[json["$tensor"]], began.get(name))
    }


def _may_be_of(buffer: Tensor, saved: Declared, began: Any) -> bool:
    if began is not None:
        return bool(began == described(buffer))
    same_dtype = saved.dtype == dtype_name(buffer.dtype) or buffer.numel() == 0
    return same_dtype and may_become(buffer, saved.shape)
