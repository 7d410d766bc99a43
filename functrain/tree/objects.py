"""Arrays, classes that torch's pytree knows, and the attributes of any other object."""

from __future__ import annotations

import sys
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor, nn

# Their attributes are not data.
_CLOSED = (Tensor, type, FunctionType, MethodType, ModuleType, nn.Module)


def is_array(value: Any) -> bool:
    """Return whether a value is a NumPy array, without importing NumPy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def is_registered(value: Any) -> bool:
    """Return whether torch's pytree knows the parts of a class that is not a builtin container."""
    return type(value) in pytree.SUPPORTED_NODES and not isinstance(value, (dict, list, tuple))


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes that an object has set, in its ``__dict__`` and in slots.

    Example:
        >>> from types import SimpleNamespace
        >>> attributes(SimpleNamespace(n=1)), attributes(len)
        ({'n': 1}, {})
    """
    if isinstance(value, _CLOSED):
        return {}
    state: Any = object.__getstate__(value)
    own, slots = state if isinstance(state, tuple) else (state, None)
    # A threading.local has a dict for each thread, which is no part of this state.
    return {**(own or getattr(value, "__dict__", {})), **(slots or {})}
