"""Attributes that a forward writes to: those that it fills are emptied again, others stay.

A tensor that is computed once and kept (``functools.cached_property``, ``functools.lru_cache``,
``if self.table is None``) is of the state that it was computed from, and the module is bound to
another state in the next step. So attributes that were ``None`` or absent, empty buffers and new
entries of dicts are put back after each forward, and numbers beside them with them. Others that
change (numbers that it counts, lists that grow, tensors that it replaces) stay in the
module. Neither is in a state, so a forward that reads what another one left gets a warning.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from typing import Any

import attrs
from torch import Tensor, nn

from functrain.errors import ModelError, ModuleStateWarning
from functrain.errors.base import warn

_OF_ALL = frozenset(vars(nn.Module()))
_REGISTERED = ["_modules", *(name for name in _OF_ALL if name.endswith("hooks"))]
_NUMBERS = (bool, int, float)
_WATCHED = 3  # forwards after which attributes are looked at only if their number changes
_LRU_CACHE: type = type(functools.lru_cache(lambda: None))


@attrs.define(eq=False)
class Attributes:
    """The attributes of a module and of all below it.

    Attributes:
        caches: those of ``functools.lru_cache`` on methods.
        tables: dicts to which a forward may add keys, with their sizes before it.
        places: of attributes that are empty: dicts and keys.
        left: names of attributes in which the last training forward left something else.
        settled: those that were compared, see :meth:`warn_of_memory`, or named in a warning.
        forwards: how many there are at present, one within the other.
        seen: how many there were.
    """

    parts: list[_Part]
    caches: list[Any]
    tables: list[dict[Any, Any]] = attrs.field(factory=list)
    sizes: list[int] = attrs.field(factory=list)
    places: list[tuple[dict[str, Any], str]] = attrs.field(factory=list)
    left: set[str] = attrs.field(factory=set)
    settled: set[str] = attrs.field(factory=set)
    forwards: int = 0
    seen: int = 0

    @classmethod
    def of(cls, module: nn.Module) -> Attributes:
        """Return those of a module as they are now."""
        parts = [_Part(path, one) for path, one in module.named_modules()]
        classes = {base for part in parts for base in type(part.module).__mro__}
        made = cls(parts, _lru_caches(classes))
        made._look()
        return made

    def enter(self) -> None:
        """Begin a forward; what it finds may have been changed by the user since the last."""
        if not self.forwards:
            if self.seen < _WATCHED or self._is_changed():
                self._look()
            for part in self.parts if self.seen >= _WATCHED else ():
                if part.fills:
                    part.look()
        self.forwards += 1

    def exit(self, training: bool, failed: bool) -> None:
        """End a forward; put back what the next one must not find."""
        self.forwards -= 1
        if self.forwards:  # it goes on with what this one has computed
            return
        for cache in self.caches:
            if _keeps_tensors(cache):
                cache.cache_clear()
        if training and self.seen < _WATCHED and not failed:
            self.left = {name for part in self.parts for name in part.changed()} - self.settled
            self.seen += 1
        if self._is_changed():
            self._restore(warns=training and not failed)

    def warn_of_memory(self) -> None:
        """Warn that a forward reads what the one before it left, which no state has."""
        warn(
            f"the forward reads what the one before it left in the attributes {sorted(self.left)} "
            "of the module, which are in no state: those that were None or absent are put back, so "
            "each step begins without them; others a resumed run begins without. If the next step "
            "needs what this one left, as a hidden state, register a buffer in __init__ and write "
            "to it",
            ModuleStateWarning,
        )

    def _restore(self, warns: bool) -> None:
        for part in self.parts:
            part.refuse_parameters()
        begun = any(_code_size(part.module) != part.code for part in self.parts)
        for part in self.parts if begun else ():
            part.adopt()
        watched = self.seen <= _WATCHED
        found = (name for one in self.parts for name in one.restore(watched or one.fills))
        numbers = set(found) - self.settled
        self._look()
        if warns and numbers:
            self.settled |= numbers
            warn(
                f"the forward changed the numbers {sorted(numbers)} of the module together with a "
                "table; both are put back, so that each forward computes them again. To compute a "
                "table once, do so in __init__. A number that steps count needs a buffer",
                ModuleStateWarning,
            )

    def _is_changed(self) -> bool:
        # At each step, so this takes few calls.
        return list(map(len, self.tables)) != self.sizes or any(
            own.get(name) is not None for own, name in self.places
        )

    def _look(self) -> None:
        for part in self.parts:
            part.look()
        self.tables = [table for part in self.parts for table in part.tables()]
        self.sizes = list(map(len, self.tables))
        self.places = [place for part in self.parts for place in part.empty_places()]


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
    return bool(cache.cache_info().currsize and _has_tensors(gc.get_referents(cache)))


@attrs.define(eq=False)
class _Part:
    """A module, with its own attributes as they were when it was last looked at.

    Attributes:
        contents: copies of the attributes that are dicts or lists.
        names: of its buffers, parameters and submodules.
        unset: the names of its buffers that are ``None`` and not persistent.
        code: how many hooks and submodules it has.
        fills: whether a forward was seen to fill something.
    """

    path: str
    module: nn.Module
    kept: dict[str, Any] = attrs.field(factory=dict)
    contents: dict[str, Any] = attrs.field(factory=dict)
    names: frozenset[str] = frozenset()
    unset: frozenset[str] = frozenset()
    code: int = 0
    fills: bool = False

    def look(self) -> None:
        """Note the attributes as they are now."""
        one = self.module
        self.kept = {name: value for name, value in vars(one).items() if name not in _OF_ALL}
        plain = {name: value for name, value in self.kept.items() if type(value) in (dict, list)}
        self.contents = {name: value.copy() for name, value in plain.items()}
        self.names = frozenset((*one._buffers, *one._parameters, *one._modules))
        unset = {name for name, buffer in one._buffers.items() if buffer is None}
        self.unset = frozenset(unset & one._non_persistent_buffers_set)
        self.code = _code_size(one)

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
        own = [value for value in self.kept.values() if type(value) is dict]
        return [vars(one), one._parameters, one._modules, one._buffers, *own]

    def changed(self) -> Iterator[str]:
        """Yield the names of attributes that have other values, or contents, than before."""
        own, absent = vars(self.module), object()
        for name, value in own.items():
            if name not in _OF_ALL and value is not self.kept.get(name, absent):
                yield joined(self.path, name)
        for name, content in self.contents.items():
            if not _are_alike(own.get(name), content):
                yield joined(self.path, name)
        yield from (joined(self.path, name) for name in self._filled())

    def adopt(self) -> None:
        """Take what a first forward has set up, except tensors, for a part of the module.

        Such as a flag that its hooks are registered.
        """
        own = vars(self.module)
        set_up = [n for n, v in own.items() if n not in _OF_ALL and not self._is_begun(n, v)]
        self.kept |= {name: own[name] for name in set_up}

    def restore(self, whole: bool) -> Iterator[str]:
        """Put everything back if there is a cache in it; yield the names of numbers put back.

        The ``whole``, if it was looked at before this forward: a module may keep a number with its
        table, such as the length that it is for.
        """
        own, buffers = vars(self.module), self.module._buffers
        begun = [name for name, value in own.items() if self._is_begun(name, value)]
        filled, grown = self._filled(), [name for name in self.contents if self._has_grown(name)]
        if not (begun or filled or grown):
            return
        for name in (own.keys() - self.kept.keys() - _OF_ALL) if whole else begun:
            del own[name]
        back = self.kept if whole else {n: self.kept[n] for n in begun if n in self.kept}
        for name, old in back.items():
            now = own.get(name)
            if isinstance(old, _NUMBERS) and isinstance(now, _NUMBERS) and now != old:
                yield joined(self.path, name)
        own.update(back)
        for name in grown:
            self.kept[name].clear()
            self.kept[name].update(self.contents[name])
        for name in filled:
            if name in self.unset:
                buffers[name] = None
            else:
                del buffers[name]
        self.fills = True

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
        return isinstance(value, float) or _has_tensors(value)

    def _filled(self) -> list[str]:
        one = self.module
        filled = [name for name, b in one._buffers.items() if b is not None]
        filled = [name for name in filled if name in one._non_persistent_buffers_set]
        return [name for name in filled if name in self.unset or name not in self.names]

    def _has_grown(self, name: str) -> bool:
        """Return whether a dict has new entries with tensors."""
        now, before = self.kept[name], self.contents[name]
        if not isinstance(now, dict):
            return False
        return any(_has_tensors(value) for key, value in now.items() if key not in before)

    def _is_of_torch(self) -> bool:
        """Return whether it is a layer of torch, whose forwards keep nothing."""
        return type(self.module).__module__.startswith("torch.")


def _code_size(module: nn.Module) -> int:
    """Return how many hooks and submodules a module has."""
    own = vars(module)
    return sum(len(own.get(name, ())) for name in _REGISTERED)


def _has_tensors(value: Any) -> bool:
    """Return whether there are tensors in nested dicts, lists and tuples."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(_has_tensors, value))
    return isinstance(value, Tensor)


def _are_alike(now: Any, before: Any) -> bool:
    """Return whether a list or dict has the same objects in it."""
    if type(now) is not type(before) or len(now) != len(before):
        return False
    if isinstance(now, dict):
        return all(now.get(key) is value for key, value in before.items())
    return all(one is other for one, other in zip(now, before, strict=True))


def joined(path: str, name: str) -> str:
    """Return the path of an attribute of a module."""
    return f"{path}.{name}" if path else name
