"""Private parts of torch that transformations use; those of Inductor are in ``graph``.

A new release of torch may move them: look here first.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.autograd.forward_ad
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import (
    get_proxy_mode,
    get_proxy_slot,
    make_fx,
    set_proxy_slot,
)
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = [
    "FakeTensorMode",
    "TorchDispatchMode",
    "allow_nested_tracing",
    "dynamo_backend",
    "get_proxy_mode",
    "get_proxy_slot",
    "is_compiling",
    "is_traceable_wrapper_subclass",
    "is_transforming",
    "make_fx",
    "set_proxy_slot",
    "tree_leaves",
    "tree_map_only",
]


def is_compiling() -> AbstractContextManager[None]:
    """Let ``torch.compiler.is_compiling()`` be true: torch has no public context that does."""
    if hasattr(torch.compiler, "_compile_session_context"):  # torch 2.13
        found: AbstractContextManager[None] = torch.compiler._compile_session_context()
        return found
    from torch._export.utils import _compiling_state_context

    return _compiling_state_context()


def allow_nested_tracing() -> AbstractContextManager[Any]:
    """Let a function that ``torch.compile`` wraps be captured as part of another."""
    found: AbstractContextManager[Any] = torch._dynamo.config.patch(error_on_nested_fx_trace=False)
    return found


def dynamo_backend(name: str) -> Any:
    """Return a backend of ``torch.compile`` by its name."""
    return torch._dynamo.lookup_backend(name)


def is_transforming() -> bool:
    """Return whether this code runs under ``torch.func`` or in forward mode."""
    functorch: Any = torch._C._functorch
    return (
        functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0
    )
