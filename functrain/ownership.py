"""Whether a state is held by anyone but the loop: what nobody else holds may be written over.

CPython counts the references to an object. A state that only the loop refers to, and whose tensors
only the state refers to, is updated in place without anybody being able to tell. What the counts do
not show is another tensor on the same memory (a view, ``detach()``, ``numpy()``).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from functrain.program import Program
from functrain.state import TrainState

_WRITTEN = ("params", "buffers", "optimizer", "ema")


def solely_held(holder: object, name: str, program: Program) -> bool:
    """Whether nobody but one object holds a state, or any tensor that a step writes to.

    Args:
        holder: the object.
        name: its attribute that holds the state.
        program: which parameters are trained; others are never written to.
    """
    if _count(holder, name) > _count(_Holder(), "held"):
        return False
    state: TrainState = getattr(holder, name)
    return (
        _held_once(map(functools.partial(getattr, state), _WRITTEN))
        and _held_once(map(state.params.__getitem__, program.fixed.trainable))
        and all(_alone(part) for part in (state.buffers, state.optimizer, state.ema))
    )


def _alone(node: Any) -> bool:
    """Whether the parts of a tree have no other holder than the tree."""
    parts = node.values() if isinstance(node, dict) else node
    return not _is_container(node) or (
        _held_once(parts) and all(_alone(part) for part in parts if not isinstance(part, Tensor))
    )


def _held_once(parts: Iterable[Any]) -> bool:
    # Through map and filter, which hold nothing themselves.
    return max(map(sys.getrefcount, filter(_is_part, parts)), default=0) <= _ONCE


def _count(holder: object, name: str) -> int:
    return sys.getrefcount(getattr(holder, name))


def _is_container(node: Any) -> bool:
    return isinstance(node, dict | list | tuple)


def _is_part(node: Any) -> bool:
    return isinstance(node, Tensor | dict | list | tuple)


class _Holder:
    """An object with something that nobody else holds."""

    def __init__(self) -> None:
        self.held = object()


# One by the container, and one by the call that counts.
_ONCE = max(map(sys.getrefcount, [object()]))
