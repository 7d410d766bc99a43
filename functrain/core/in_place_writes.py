"""Find the parameters that a forward writes to in place.

Parameters that a forward writes to are momentum encoders and ``nn.Embedding(max_norm=...)``. The
values that a forward writes belong to the next state, and the state that a step was given must
not change. Buffers are copied before each forward for that reason. Parameters are many, and few
forwards write to them, so only the first forwards get copies of all; later ones get copies of those
that were written to. A write that goes unnoticed corrupts the old state, never the new one.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain import tree
from functrain.core.state import Tensors
from functrain.errors import ModelError

# A momentum encoder that begins as a copy of another one changes in the second step.
_WATCHED = 3
# Frozen parameters of at most so many times the size of the others are copied to watch them: a
# momentum encoder is as large as what it follows, a model with adapters is far larger than they.
_SIZE = 2


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
        layers = [m for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
        renormed = {id(layer.weight) for layer in layers if layer.max_norm is not None}
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
        found = dict(params)
        for path in self.paths.union(paths) if self.paths or paths else ():
            found[path] = params[path].clone()
        return found

    def settled(
        self, given: Tensors, params: Tensors, watched: Collection[str], by_values: bool = True
    ) -> Tensors:
        """Return the parameters after a forward for which ``watched`` were copied, and remember it.

        ``params`` is emptied: then the memory of a copy is gone, unless somebody kept a part of it.
        To compare versions instead of values waits for no device, and does not find ``.data``.
        """
        if by_values:
            self.paths |= {path for path, now in params.items() if _differ(given[path], now)}
        else:
            self.paths |= {path for path in watched if params[path]._version}
        self.watched += 1
        alike = [p for p in watched if p not in self.paths and not params[p].requires_grad]
        plain = [path for path in alike if type(params[path]) is Tensor]
        memory = [weakref.ref(params[path].untyped_storage()) for path in plain]
        found = {**params, **{path: given[path] for path in alike}}
        params.clear()
        self.kept |= any(one() is not None for one in memory)
        return found

    def adopt(self, params: Tensors, bound: Tensors, now: Tensors) -> None:
        """Adopt the values that a forward gave parameters by ``.data =`` or by assignment.

        ``bound`` are the tensors that the module was given for some of ``params``, ``now`` are all
        that it has. Those with other values are replaced in ``params``.
        """
        if _share_places(now.values(), [params[path] for path in now]):
            return
        for path, held in now.items():
            if held is not bound[path] and bound[path].requires_grad:
                raise ModelError(
                    "the forward put another tensor instead of the trained parameter "
                    f"{path!r}, where no gradient reaches it. Write to the parameter that is there "
                    "instead: with torch.no_grad(): parameter.copy_(values)"
                )
            if not _share_places([held], [params[path]]):
                params[path] = held.detach().clone()
                self.paths.add(path)


def _differ(old: Tensor, new: Tensor) -> bool:
    """Return whether a copy has other values; one on the meta device has none to compare."""
    return new is not old and not old.is_meta and not tree.equal(old, new)


def _share_places(some: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    """Return whether tensors have the memory of others, each in turn; ``.data =`` gives another."""
    # In a graph that is traced there are storages, but no addresses.
    place: Any = Tensor.untyped_storage if torch.compiler.is_compiling() else Tensor.data_ptr
    try:
        return list(map(place, some)) == list(map(place, others))
    except RuntimeError:  # of a layout that has no memory of its own
        strided = [[t for t in tensors if t.layout is torch.strided] for tensors in (some, others)]
        return list(map(place, strided[0])) == list(map(place, strided[1]))


def _size(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
