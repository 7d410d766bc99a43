"""Decide whether a saved buffer of another shape or dtype fits.

The forward pass may have set its shape (per-channel observers, membrane potentials, running
caches), or it may belong to another model with the same parameters (a longer table of positions).
A run records the initial shapes and dtypes of its buffers; a state saved without ``fit`` does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.records import Declared
from functrain.checkpoint.format.scalars import Json
from functrain.core.buffers import may_become

# The initial form of each buffer in the run that was saved: {"shape": [1], "dtype": "float32"}.
Began = Mapping[str, Any]


def noted(info: Any) -> Began:
    """Return the initial forms that a run recorded; empty for checkpoints without ``fit``."""
    found = info.get("buffers") if isinstance(info, dict) else None
    return found if isinstance(found, dict) else {}


def described(buffer: Tensor) -> dict[str, Any]:
    """Return the form of a buffer as a run records it."""
    return {"shape": list(buffer.shape), "dtype": dtype_name(buffer.dtype)}


def changed_by_use(
    buffers: Mapping[str, Any], saved: Mapping[str, Json], leaves: Sequence[Declared], began: Began
) -> set[str]:
    """Return the names of expected buffers that a run may have turned into the saved ones."""
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
