"""Attributes that a forward fills, which no later forward may find filled.

A tensor that is computed once and kept (``functools.cached_property``, ``functools.lru_cache``,
``if self.table is None``) is one of the state it was computed from, and the module is bound to
another state in the next step. So such attributes are emptied after each forward, and computed
again in the next. Numbers that a module counts and lists that grow are left alone: they are state
of the module's own, which ``compiled`` refuses.
"""

from __future__ import annotations

import functools
import gc
import operator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain import tree
from functrain.core.module_part import NUMBERS, Part, code_size, joined, tensors_in
from functrain.errors import ModuleStateWarning
from functrain.errors.base import warn

_LRU_CACHE: type = type(functools.lru_cache(lambda: None))
_is_none = functools.partial(operator.is_, None)


@attrs.define(eq=False)
class Attributes:
    """The attributes of a module and of all below it, as it was made.

    Attributes:
        caches: those of ``functools.lru_cache`` on methods.
        tables: dicts to which a forward may add keys, with their sizes.
        places: of attributes that are empty: dicts and keys.
        first: the tensors that were found first in those that are emptied.
        settled: those whose values are alike in each forward, or that a warning has named.
        forwards: how many there are at present, one within the other.
    """

    parts: list[Part]
    caches: list[Any]
    tables: list[dict[Any, Any]] = attrs.field(factory=list)
    sizes: list[int] = attrs.field(factory=list)
    places: tuple[list[dict[str, Any]], list[str]] = ([], [])
    first: dict[str, list[Tensor]] = attrs.field(factory=dict)
    settled: set[str] = attrs.field(factory=set)
    forwards: int = 0

    @classmethod
    def of(cls, module: nn.Module) -> Attributes:
        """Return those of a module as they are now."""
        parts = [Part.of(path, one) for path, one in module.named_modules()]
        classes = {base for part in parts for base in type(part.module).__mro__}
        made = cls(parts, _lru_caches(classes))
        made._find_places()
        return made

    def restore(self, warns: bool) -> None:
        """Put back what the next forward must not find."""
        for cache in self.caches:
            if _keeps_tensors(cache):
                cache.cache_clear()
        # At each step, so this takes few calls.
        if list(map(len, self.tables)) == self.sizes and all(
            map(_is_none, map(dict.get, *self.places))
        ):
            return
        for part in self.parts:
            part.refuse_parameters()
        begun = [part for part in self.parts if code_size(part.module) != part.code]
        for part in self.parts if begun else ():
            part.adopt()
        found = {
            joined(part.path, name): value for part in self.parts for name, value in part.restore()
        }
        if begun:
            self._find_places()
        if warns:
            self._warn_of(found)

    def _find_places(self) -> None:
        self.tables = [table for part in self.parts for table in part.tables()]
        self.sizes = list(map(len, self.tables))
        places = [place for part in self.parts for place in part.empty_places()]
        self.places = [owner for owner, _ in places], [name for _, name in places]

    def _warn_of(self, found: dict[str, Any]) -> None:
        missed = [name for name, value in found.items() if self._is_missed(name, value)]
        if missed:
            self.settled.update(missed)
            warn(
                f"the forward left values in the attributes {missed[:8]} of the module, which are "
                "in no state; they are put back, so that each forward computes them again. To "
                "compute a table once, do so in __init__. If the next step needs what this one "
                "left, as a hidden state, register a buffer in __init__ and write to it",
                ModuleStateWarning,
            )

    def _is_missed(self, name: str, value: Any) -> bool:
        """Return whether a value is a number, or differs from the one of an earlier forward."""
        if name in self.settled:
            return False
        if isinstance(value, NUMBERS):
            return True
        tensors = tensors_in(value)
        if not all(map(_has_values, tensors)):
            return False
        if (before := self.first.get(name)) is None:
            self.first[name] = [tensor.clone() for tensor in tensors]
            return False
        if [one.shape for one in before] != [one.shape for one in tensors]:
            return False  # a table of another length
        self.settled.add(name)
        return not tree.equal(self.first.pop(name), tensors)


def _lru_caches(classes: set[type]) -> list[Any]:
    found = []
    for value in [value for one in classes for value in vars(one).values()]:
        function = value.fget if isinstance(value, property) else value
        if isinstance(function, _LRU_CACHE):
            found.append(function)
    return found


def _keeps_tensors(cache: Any) -> bool:
    """Return whether a cache of ``functools.lru_cache`` has tensors in what it keeps."""
    # It tells nobody its results but the garbage collector.
    return bool(cache.cache_info().currsize and tensors_in(gc.get_referents(cache)))


def _has_values(tensor: Tensor) -> bool:
    """Return whether a tensor can be compared, and is no output of the forward."""
    plain = type(tensor) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return plain and not tensor.requires_grad and not tensor.is_meta
