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
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain import tree
from functrain.errors import ModelError, ModuleStateWarning
from functrain.errors.base import warn

_OF_ALL = frozenset(vars(nn.Module()))
_REGISTERED = ["_modules", *(name for name in _OF_ALL if name.endswith("hooks"))]
_NUMBERS = (bool, int, float)
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

    parts: list[_Part]
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
        parts = [_Part.of(path, one) for path, one in module.named_modules()]
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
        begun = [part for part in self.parts if _code_size(part.module) != part.code]
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
        if isinstance(value, _NUMBERS):
            return True
        tensors = _tensors_in(value)
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
    return bool(cache.cache_info().currsize and _tensors_in(gc.get_referents(cache)))


def _has_values(tensor: Tensor) -> bool:
    """Return whether a tensor can be compared, and is no output of the forward."""
    plain = type(tensor) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return plain and not tensor.requires_grad and not tensor.is_meta


@attrs.define(eq=False)
class _Part:
    """A module, with its own attributes as it was made.

    Attributes:
        dicts: copies of the attributes that are dicts.
        names: of its buffers, parameters and submodules.
        unset: the names of its buffers that were ``None`` and are not persistent.
        code: how many hooks and submodules it has.
    """

    path: str
    module: nn.Module
    kept: dict[str, Any]
    dicts: dict[str, dict[Any, Any]]
    names: frozenset[str]
    unset: frozenset[str]
    code: int

    @classmethod
    def of(cls, path: str, module: nn.Module) -> _Part:
        """Return a module as it is now."""
        kept = {name: value for name, value in vars(module).items() if name not in _OF_ALL}
        dicts = {name: value.copy() for name, value in kept.items() if type(value) is dict}
        names = frozenset((*module._buffers, *module._parameters, *module._modules))
        unset = {name for name, buffer in module._buffers.items() if buffer is None}
        unset &= module._non_persistent_buffers_set
        return cls(path, module, kept, dicts, names, frozenset(unset), _code_size(module))

    def empty_places(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield (dict, key) where there is ``None``, and a forward may put something else."""
        yield from ((self.module._buffers, name) for name in self.unset)
        if not self._is_of_torch():
            own = vars(self.module)
            yield from ((own, name) for name, value in self.kept.items() if value is None)

    def tables(self) -> list[dict[Any, Any]]:
        """Return the dicts to which a forward may add keys."""
        one = self.module
        if self._is_of_torch():
            return [vars(one)]
        own = [self.kept[name] for name in self.dicts]
        return [vars(one), one._parameters, one._modules, one._buffers, *own]

    def adopt(self) -> None:
        """Take what a first forward has set up, except tensors, for a part of the module.

        Such as a flag that its hooks are registered.
        """
        own = vars(self.module)
        self.kept |= {
            name: value
            for name, value in own.items()
            if name not in _OF_ALL and not self._is_begun(name, value)
        }
        self.code = _code_size(self.module)

    def restore(self) -> Iterator[tuple[str, Any]]:
        """Put everything back if there is a cache in it; yield what has been put back.

        All of it: a module may keep a number with its table, such as the length that it is for.
        """
        own, buffers = vars(self.module), self.module._buffers
        begun = {name: value for name, value in own.items() if self._is_begun(name, value)}
        filled = {name: one for name, one in buffers.items() if self._is_filled(name, one)}
        grown = [name for name, before in self.dicts.items() if _has_more(self.kept[name], before)]
        if not (begun or filled or grown):
            return
        yield from (begun | filled).items()
        for name, old in self.kept.items():
            now = own.get(name)
            if isinstance(old, _NUMBERS) and isinstance(now, _NUMBERS) and now != old:
                yield name, now
        for name in own.keys() - self.kept.keys() - _OF_ALL:
            del own[name]
        own.update(self.kept)
        for name, before in self.dicts.items():
            self.kept[name].clear()
            self.kept[name].update(before)
        for name in filled:
            if name in self.unset:
                buffers[name] = None
            else:
                del buffers[name]

    def refuse_parameters(self) -> None:
        """Take away parameters that a forward has registered, and raise."""
        parameters, modules = self.module._parameters, self.module._modules
        found = [name for name in parameters if name not in self.names]
        added = {name: one for name, one in modules.items() if name not in self.names}
        found += [name for name, one in added.items() if one is not None and [*one.parameters()]]
        for name in found:
            parameters.pop(name, None)
            modules.pop(name, None)
            if name in self.kept:
                vars(self.module)[name] = self.kept[name]
        if found:
            raise ModelError(
                f"the forward made {[joined(self.path, name) for name in found][:8]}, which have "
                "parameters that are in no state and would never be trained. Make them in __init__"
            )

    def _is_begun(self, name: str, value: Any) -> bool:
        if name in _OF_ALL or self.kept.get(name) is not None:
            return False
        return isinstance(value, float) or bool(_tensors_in(value))

    def _is_filled(self, name: str, buffer: Tensor | None) -> bool:
        if buffer is None or name not in self.module._non_persistent_buffers_set:
            return False
        return name in self.unset or name not in self.names

    def _is_of_torch(self) -> bool:
        """Return whether it is a layer of torch, whose forwards keep nothing."""
        return type(self.module).__module__.startswith("torch.")


def _code_size(module: nn.Module) -> int:
    """Return how many hooks and submodules a module has."""
    own = vars(module)
    return sum(len(own.get(name, ())) for name in _REGISTERED)


def _tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in _tensors_in(one)]
    return []


def _has_more(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Return whether a dict has new entries with tensors."""
    return any(_tensors_in(value) for key, value in now.items() if key not in before)


def joined(path: str, name: str) -> str:
    """Return the path of an attribute of a module."""
    return f"{path}.{name}" if path else name
