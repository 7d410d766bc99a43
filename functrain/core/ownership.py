"""Whether a state is the only holder of its tensors, so that a donated step may overwrite them.

CPython counts the references to an object: where only a state refers to its tensors, nobody can
notice that they are updated in place. Torch counts the tensors on the same memory (views,
``detach()``, ``numpy()``). A tensor with another holder, such as a state made by
``attrs.evolve`` or a target network, is left alone: the step then writes to copies. Only this
file depends on private parts of CPython and torch to find that out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from functrain.core.state import TrainState
from functrain.tree.placed import is_placed, local

Container = dict[Any, Any] | list[Any] | tuple[Any, ...]

_CONTAINERS, _TENSOR = (dict, list, tuple), frozenset({Tensor})
_USE_COUNT = getattr(torch._C, "_storage_Use_Count", lambda address: sys.maxsize)
_WRITTEN = ("params", "buffers", "optimizer", "ema")


def solely_held(holder: object, name: str) -> bool:
    """Return whether one attribute is the only reference to an object."""
    return _EVERY_HOLDER_SHOWS and _count(holder, name) <= _BY_ATTRIBUTE


def owns_its_tensors(
    state: TrainState, updated: list[str], eager: bool, of_step: bool = False
) -> bool:
    """Return whether nothing but a state holds any tensor that a step writes to.

    References to the state itself do not count; a donated step consumes it. An eager step looks
    itself for views of the parameters, after the forward. The tensors of a state ``of_step`` were
    allocated by a step.
    """
    return _EVERY_HOLDER_SHOWS and _is_alone(state, updated, eager, of_step)


def _is_alone(state: TrainState, updated: list[str], eager: bool, of_step: bool = True) -> bool:
    parts = _WRITTEN if state.ema is not None else _WRITTEN[:-1]
    if max([sys.getrefcount(getattr(state, part)) for part in parts]) > _BY_ATTRIBUTE:
        return False
    trained = list(map(state.params.__getitem__, updated))
    others = _solely_held_tensors([state.buffers, state.optimizer, state.ema or {}])
    if others is None or max(_most(trained), _most(others)) > _IN_TWO:
        return False
    alone = unshared(others) and (eager or unshared(trained))
    return alone and (of_step or all(map(_is_allocated, [*trained, *others])))


def _is_allocated(tensor: Tensor) -> bool:
    """Return whether torch allocated the memory.

    It counts no holders of other memory: of an array (``torch.from_numpy``, DLPack) or a file.
    """
    tensor = local(tensor) if is_placed(tensor) else tensor
    return tensor.layout is not torch.strided or tensor.untyped_storage().resizable()


def unshared(tensors: list[Tensor]) -> bool:
    """Whether no other tensor lies on the memory of several: no view, ``detach()``, ``numpy()``.

    Memory that other processes may see counts as shared.

    Memory that is not torch's is not looked at, and of a DTensor only the local part is.

    Example:
        >>> weight = torch.zeros(3)
        >>> unshared([weight])
        True
        >>> kept = weight.detach()
        >>> unshared([weight])
        False
    """
    if not _TENSOR.issuperset(map(type, tensors)):
        placed = [local(tensor) for tensor in tensors if is_placed(tensor)]
        # Without autograd, to_local() returns the local tensor itself: no other tensor to count.
        if _most(placed) > _IN_TWO:
            return False
        tensors = [*placed, *(tensor for tensor in tensors if not is_placed(tensor))]
    return _most_on_one(tensors) <= _ALONE


def _most_on_one(tensors: list[Tensor]) -> int:
    """Return the most holders that the memory of any tensor has, and the object of its storage.

    Other processes count as one. On CUDA, ``is_shared`` is always true and says nothing.
    """
    try:
        storages = map(Tensor.untyped_storage, tensors)  # one at a time, which is faster
        uses = [
            _USE_COUNT(one._cdata) + sys.getrefcount(one) + (one.is_shared() and not one.is_cuda)
            for one in storages
        ]
        return max(uses, default=0)
    except RuntimeError:  # of a layout that has no storage; to ask each beforehand takes as long
        return _most_on_one([tensor for tensor in tensors if tensor.layout is torch.strided])


def _solely_held_tensors(nodes: list[Container]) -> list[Tensor] | None:
    """Return the tensors of several trees; ``None`` where a container in one has more holders.

    Numbers and ``None`` are held everywhere, and do not count.
    """
    tensors: list[Tensor] = []
    for node in nodes:  # which grows
        parts = node.values() if isinstance(node, dict) else node
        if _TENSOR.issuperset(map(type, parts)):
            tensors += parts
            continue
        inner = [part for part in parts if isinstance(part, _CONTAINERS)]
        if _most(inner) > _IN_TWO:
            return None
        nodes += inner
        tensors += [part for part in parts if isinstance(part, Tensor)]
    return tensors


def _most(parts: list[Any]) -> int:
    """Return the most references that any of several objects has."""
    return max(map(sys.getrefcount, parts), default=0)


def _count(holder: object, name: str) -> int:
    return sys.getrefcount(getattr(holder, name))


class _Holder:
    """An object with something that nobody else holds."""

    def __init__(self) -> None:
        self.held = object()


def _every_holder_shows() -> bool:
    """Return whether the counts of this Python and torch change with a second holder of anything.

    How many references a call itself holds differs between versions of Python (3.14 borrows some),
    and how torch ties a tensor to its object between those of torch. Without this, a state that is
    still in use would be overwritten where the constants do not fit.
    """
    for keep in _KEEPERS:
        moments = {"w": torch.empty(1, device="cpu"), "step": 0}
        state: Any = SimpleNamespace(
            params={"w": torch.empty(1, device="cpu")}, buffers={}, optimizer=[moments], ema=None
        )
        del moments
        kept = keep(state)
        if _is_alone(state, ["w"], eager=False):
            return False
        del kept
    holder = _Holder()
    kept = holder.held
    found = _count(holder, "held")
    del kept
    return found > _BY_ATTRIBUTE


_KEEPERS: tuple[Callable[[Any], object], ...] = (
    lambda state: state.params,
    lambda state: state.params["w"],
    lambda state: state.params["w"].detach(),
    lambda state: state.params["w"].untyped_storage(),
    lambda state: state.optimizer,
    lambda state: state.optimizer[0],
    lambda state: state.optimizer[0]["w"],
    lambda state: state.optimizer[0]["w"].view(1, 1),
)
# By the call that counts, and by the one attribute; or by the container and the list of them all.
_BY_ATTRIBUTE = _count(_Holder(), "held")
_IN_TWO = 1 + _most([object()])
# The tensor alone, and the call that counts.
_ALONE = _most_on_one([torch.empty(1)])
_EVERY_HOLDER_SHOWS = _every_holder_shows()
