"""Whether a state is held by anyone but the loop: what nobody else holds may be written over.

CPython counts the references to an object. A state that only the loop refers to, and whose tensors
only the state refers to, is updated in place without anybody being able to tell. And torch
counts the tensors on the same memory (views, ``detach()``, ``numpy()``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from functrain.memory import unshared
from functrain.program import Program
from functrain.state import TrainState

_CONTAINERS = (dict, list, tuple)
_WRITTEN = ("params", "buffers", "optimizer", "ema")


def solely_held(holder: object, name: str, program: Program) -> bool:
    """Whether nobody but one object holds a state, or any tensor that a step writes to.

    Args:
        holder: the object.
        name: its attribute that holds the state.
        program: which parameters are trained; others are never written to.
    """
    if _count(holder, name) > _BY_ATTRIBUTE:
        return False
    state: TrainState = getattr(holder, name)
    if any(_count(state, part) > _BY_ATTRIBUTE for part in _parts(state)):
        return False
    trained = [state.params[path] for path in program.fixed.trainable]
    if not unshared(trained):
        return False
    del trained
    return _most(map(state.params.__getitem__, program.fixed.trainable)) <= _ONCE and all(
        _alone(part) for part in (state.buffers, state.optimizer, state.ema)
    )


def _parts(state: TrainState) -> tuple[str, ...]:
    return _WRITTEN if state.ema is not None else _WRITTEN[:-1]


def _alone(node: Any) -> bool:
    """Whether the parts of a tree have no other holder than the tree."""
    if not isinstance(node, _CONTAINERS):
        return True
    parts = node.values() if isinstance(node, dict) else node
    # Numbers and None are held everywhere, and do not count: they are sorted out where need be.
    if _most(parts) > _ONCE and _most(filter(_is_part, parts)) > _ONCE:
        return False
    tensors = [part for part in parts if isinstance(part, Tensor)]
    return unshared(tensors) and all(_alone(part) for part in parts if type(part) is not Tensor)


def _most(parts: Iterable[Any]) -> int:
    """The most references that any of several objects has; to be given what holds none itself."""
    return max(map(sys.getrefcount, parts), default=0)


def _count(holder: object, name: str) -> int:
    return sys.getrefcount(getattr(holder, name))


def _is_part(node: Any) -> bool:
    return isinstance(node, (Tensor, *_CONTAINERS))


class _Holder:
    """An object with something that nobody else holds."""

    def __init__(self) -> None:
        self.held = object()


# One by what holds it, and one by the call that counts.
_ONCE, _BY_ATTRIBUTE = _most([object()]), _count(_Holder(), "held")
