"""Writes in place: those of a forward are found, those of any other code are refused.

Parameters that a forward writes to are momentum encoders and ``nn.Embedding(max_norm=...)``. The
values that a forward writes belong to the next state, and the state that a step was given must
not change. Buffers are copied before each forward for that reason. Parameters are many, and few
forwards write to them, so a step copies only those that an earlier forward wrote to. A write that
goes unnoticed corrupts the old state, never the new one.

Code that is lent a state must not write to it at all; :class:`Versions` finds out whether it did.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain import tree
from functrain.core.state import Tensors
from functrain.errors import ImpurityError, ModelError
from functrain.tree.objects import is_array

# A momentum encoder that begins as a copy of another one changes in the second step.
_WATCHED = 3
# Frozen parameters of at most so many times the size of the others are copied to watch them: a
# momentum encoder is as large as what it follows, a model with adapters is far larger than they.
_SIZE = 2
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_VERSION, _REQUIRES_GRAD = map(operator.attrgetter, ("_version", "requires_grad"))


@attrs.define(eq=False)
class InPlaceWrites:
    """The parameters that forwards were seen to write to.

    This memory never changes the result of a step, only which parameters are copied before it.

    Attributes:
        paths: of those parameters.
        watched: in how many forwards parameters were compared before and after.
        kept: whether the loss or the model kept one, or a view of it, beyond its step.
    """

    paths: set[str] = attrs.field(factory=set)
    watched: int = 0
    kept: bool = False

    @classmethod
    def of(cls, module: nn.Module, params: Tensors) -> InPlaceWrites:
        """Begin with the parameters that torch's own layers write to."""
        renormed = [
            id(one.weight)
            for one in module.modules()
            if isinstance(one, nn.Embedding | nn.EmbeddingBag) and one.max_norm is not None
        ]
        return cls({path for path, one in params.items() if id(one) in renormed})

    def suspects(
        self, params: Tensors, trainable: Collection[str], only_frozen: bool = False
    ) -> set[str]:
        """Choose the parameters to copy in order to see whether a forward writes to them.

        There are none where enough forwards were watched.
        """
        if self.watched >= _WATCHED:
            return set()
        trained = {path: params[path] for path in trainable}
        frozen = {path: tensor for path, tensor in params.items() if path not in trained}
        small = _size(frozen) <= _SIZE * _size(trained)
        return {*(() if only_frozen else trained), *(frozen if small else ())}

    def owned(self, params: Tensors, paths: Collection[str] = ()) -> Tensors:
        """Return all parameters, with copies of ``paths`` and of those that a forward writes to."""
        known = self.paths
        if not known and not paths:
            return dict(params)
        return {
            path: tensor.clone() if path in known or path in paths else tensor
            for path, tensor in params.items()
        }

    def bound(self, params: Tensors, leaves: Tensors) -> Tensors:
        """Return the tensors to bind: aliases, where ``.data =`` is to be seen afterwards."""
        watching = self.watched < _WATCHED and len(leaves) < len(params)
        if not watching and not self.paths:
            return {**params, **leaves}
        paths = params.keys() if watching else self.paths
        frozen = {path: params[path].detach() for path in paths if path not in leaves}
        return {**params, **frozen, **leaves}

    def notice(self, before: Tensors, after: Tensors) -> None:
        """Remember the parameters that a forward wrote to.

        Those after it are the same tensors where they were not copied.
        """
        pairs = [(path, before[path], tensor) for path, tensor in after.items()]
        copied = [(path, old, new) for path, old, new in pairs if new is not old]
        # A tensor on the meta device has no values to compare.
        self.paths |= {p for p, old, new in copied if not old.is_meta and not tree.equal(old, new)}
        self.watched += 1

    def settled(
        self, given: Tensors, params: Tensors, watched: Collection[str], by_values: bool = True
    ) -> Tensors:
        """Return the parameters after a forward for which some were copied, and remember it.

        ``params`` is emptied: then the memory of a copy is gone, unless somebody kept a part of it.
        """
        if by_values:
            self.notice(given, params)
        else:  # no device is waited for
            self.paths |= {path for path in watched if params[path]._version}
            self.watched += 1
        alike = [p for p in watched if p not in self.paths and not params[p].requires_grad]
        plain = [params[path] for path in alike if type(params[path]) is Tensor]
        memory = [weakref.ref(one.untyped_storage()) for one in plain]
        found = {**params, **{path: given[path] for path in alike}}
        del plain
        params.clear()
        self.kept |= any(one() is not None for one in memory)
        return found

    def adopt(self, params: Tensors, bound: Tensors, now: Tensors) -> None:
        """Adopt the values that a forward gave parameters by ``.data =`` or by assignment.

        ``bound`` are the tensors that the module was given for some of ``params``, ``now`` are all
        that it has. Those with other values are replaced in ``params``.
        """
        if _share_places(now.values(), list(map(params.__getitem__, now))):
            return
        for path, held in now.items():
            if held is not (one := bound[path]) and one.requires_grad:
                raise ModelError(
                    "the forward put another tensor instead of the trained parameter "
                    f"{path!r}, where no gradient reaches it. Write to the parameter that is there "
                    "instead: with torch.no_grad(): parameter.copy_(values)"
                )
            if not _share_places([held], [params[path]]):
                params[path] = held.detach().clone()
                self.paths.add(path)


class Versions:
    """Everything in a tree that can be written to, as it is now.

    Torch counts the writes to a tensor, other than those through ``.data`` and ``.numpy()``; the
    items of lists and mutable objects, and the elements of arrays, are kept.

    Args:
        value: any tree.
        where: its place, with which the paths in messages begin.
    """

    def __init__(self, value: Any, where: str) -> None:
        self._held = [
            (".".join([where, *map(str, path)]), part, _contents(part))
            for path, part in _writable(value, ())
        ]

    def are_written(self) -> bool:
        """Return whether code has written to the tree."""
        return not all(_unchanged(before, _contents(part)) for _, part, before in self._held)

    def refuse_writes(self, what: str, advice: str = "") -> None:
        """Refuse code that has written to the tree."""
        found = [
            f"{place} was changed in place: {_remedy(part)}"
            for place, part, before in self._held
            if not _unchanged(before, _contents(part))
        ]
        if found:
            raise ImpurityError(what, found, advice)


def _writable(value: Any, path: tree.Path) -> Iterator[tuple[tree.Path, Any]]:
    if tree.is_node(value):
        if not isinstance(value, tuple | tree.FrozenDict):
            yield path, value
        for key, child in tree.children(value):
            yield from _writable(child, (*path, key))
    elif is_array(value) or (isinstance(value, Tensor) and not value.is_inference()):
        yield path, value


def _contents(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part._version
    if is_array(part):
        return part.dtype, part.shape, part.tobytes()
    return tree.children(part)


def _unchanged(before: Any, after: Any) -> bool:
    if not isinstance(before, list):
        return bool(before == after)
    return len(before) == len(after) and all(
        key == other and child is one
        for (key, child), (other, one) in zip(before, after, strict=True)
    )


def _remedy(part: Any) -> str:
    if isinstance(part, Tensor):
        return (
            "compute another tensor, x + y instead of x += y or x.add_(y), or write to a copy, "
            "x.clone()"
        )
    if is_array(part):
        return "compute another array, x + y instead of x += y, or write to a copy, x.copy()"
    another = {list: "[*x, y]", dict: "{**x, key: y}"}
    shown = next((made for cls, made in another.items() if isinstance(part, cls)), None)
    return f"make another one, {shown or 'attrs.evolve(x, field=y)'}"


def _share_places(some: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    """Whether tensors lie at the addresses of others, each in turn; only ``.data =`` moves one."""
    # In a graph that is traced there are storages, but no addresses.
    place = _storage if torch.compiler.is_compiling() else Tensor.data_ptr
    try:
        return list(map(place, some)) == list(map(place, others))
    except RuntimeError:  # of a layout that has no memory of its own
        strided = [[t for t in tensors if t.layout is torch.strided] for tensors in (some, others)]
        return list(map(place, strided[0])) == list(map(place, strided[1]))


def _storage(tensor: Tensor) -> int:
    place: int = tensor.untyped_storage()._cdata
    return place


def _size(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
