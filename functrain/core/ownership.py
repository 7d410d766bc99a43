"""Whether anyone else can see a state: what nobody else holds may be written over.

CPython counts the references to an object. Where only a state refers to its tensors, they can be
updated in place without anybody being able to tell. And torch counts the tensors on the same memory
(views, ``detach()``, ``numpy()``). Tensors that somebody else does hold, another state made by
``attrs.evolve`` or a target network, are left alone: the step then writes to copies.
"""

from __future__ import annotations

import sys
from itertools import repeat
from typing import Any

from torch import Tensor

from functrain.core.memory import unshared
from functrain.core.state import TrainState

Container = dict[Any, Any] | list[Any] | tuple[Any, ...]

_CONTAINERS, _TENSOR = (dict, list, tuple), frozenset({Tensor})
_WRITTEN = ("params", "buffers", "optimizer", "ema")


def solely_held(holder: object, name: str) -> bool:
    """Return whether one attribute is the only reference to an object.

    Args:
        holder: the object with the attribute.
        name: of the attribute.
    """
    return _count(holder, name) <= _BY_ATTRIBUTE


def owns_its_tensors(state: TrainState, updated: list[str], eager: bool) -> bool:
    """Return whether nothing but a state holds any tensor that a step writes to.

    Args:
        state: who holds the state itself does not matter; a donated step consumes it.
        updated: paths of the parameters that a step writes to.
        eager: whether the step asks for views of the parameters itself, once the loss has seen
            them.
    """
    if max([_count(state, part) for part in _parts(state)]) > _BY_ATTRIBUTE:
        return False
    trained = list(map(state.params.__getitem__, updated))
    others: list[Tensor] = []
    for node in (state.buffers, state.optimizer, state.ema):
        if node is not None and not _gather(node, others):
            return False
    if max(_most(trained), _most(others)) > _IN_TWO:
        return False
    return unshared(others) and (eager or unshared(trained))


def _parts(state: TrainState) -> tuple[str, ...]:
    return _WRITTEN if state.ema is not None else _WRITTEN[:-1]


def _gather(node: Container, tensors: list[Tensor]) -> bool:
    """Put the tensors of a tree into a list; return false where a container has more holders.

    Numbers and ``None`` are held everywhere, and do not count.
    """
    parts = node.values() if isinstance(node, dict) else node
    if _TENSOR.issuperset(map(type, parts)):
        tensors += parts
        return True
    inner = [part for part in parts if isinstance(part, _CONTAINERS)]
    if _most(inner) > _IN_TWO:
        return False
    tensors += [part for part in parts if isinstance(part, Tensor)]
    return all(map(_gather, inner, repeat(tensors)))


def _most(parts: list[Any]) -> int:
    """The most references that any of several objects has."""
    return max(map(sys.getrefcount, parts), default=0)


def _count(holder: object, name: str) -> int:
    return sys.getrefcount(getattr(holder, name))


class _Holder:
    """An object with something that nobody else holds."""

    def __init__(self) -> None:
        self.held = object()


# By the call that counts, and by the one attribute; or by the container and the list of them all.
_BY_ATTRIBUTE = _count(_Holder(), "held")
_IN_TWO = 1 + _most([object()])
