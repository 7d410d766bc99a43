"""Undo what a forward leaves in the attributes of its module, so that each step starts alike.

A tensor that is computed once and kept (``functools.cached_property``, ``functools.lru_cache``,
``if self.table is None``) belongs to the state it was computed from, and the next step binds the
module to another one. So after each forward:

* attributes, entries of dicts and buffers that were absent or ``None`` and now have tensors are
  emptied; the attributes beside them are put back too, as one may be the length of a table.
  ``lru_cache``s of methods are cleared.
* new parameters and new persistent buffers are taken away and refused, as no state has them.
* other changes stay in the module: numbers that it counts, lists that grow, tensors that it
  replaces, hooks and submodules without parameters. A warning says if the next forward reads them.

At each step only the sizes of dicts and the places that were empty are looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from functrain.errors import ModelError, ModuleStateWarning
from functrain.errors.base import warn

_OF_ALL = frozenset(vars(nn.Module()))
_CODE = ["_modules", *(name for name in _OF_ALL if name.endswith("hooks"))]
_WATCHED = 3  # training forwards that are compared
_ABSENT = object()
_LRU_CACHE: type = type(functools.lru_cache(lambda: None))


class Table(NamedTuple):
    """A dict or list of a module, such as its ``__dict__`` or ``_buffers``, and a copy of it."""

    path: str  # with which the names of its entries begin
    module: nn.Module
    now: Any
    before: dict[Any, Any]  # its entries as they were, of a list by index

    @property
    def is_own(self) -> bool:
        """Whether this is the ``__dict__`` of the module."""
        return self.now is vars(self.module)

    def changed(self) -> Iterator[Any]:
        """Yield the keys of entries that are others now, or are gone."""
        now = entries(self.now)
        for key in {**now, **self.before}:
            if now.get(key, _ABSENT) is not self.before.get(key, _ABSENT):
                yield key

    def changed_numbers(self) -> Iterator[str]:
        """Yield the names of attributes that are other numbers now."""
        for name, old in self.before.items():
            now = self.now.get(name)
            if isinstance(old, int | float) and isinstance(now, int | float) and now != old:
                yield name

    def new(self) -> list[Any]:
        """Return the keys of a dict under which there was nothing, and now is something."""
        now, before = self.now, self.before
        return [key for key in now if now[key] is not None and before.get(key) is None]

    def filled(self) -> list[Any]:
        """Return the new keys of tensors; a number among the attributes was computed from some."""
        kinds = Tensor | float if self.is_own else Tensor
        return [key for key in self.new() if _has(self.now[key], kinds)]

    def registered(self) -> list[str]:
        """Return the names of new parameters and persistent buffers."""
        module, now = self.module, self.now
        if now is module._buffers:
            return [name for name in self.new() if name not in module._non_persistent_buffers_set]
        if now is module._modules:
            return [name for name in self.new() if [*self.now[name].parameters()]]
        return self.new() if now is module._parameters else []

    def put_back(self) -> None:
        """Put all entries back."""
        if isinstance(self.now, list):
            self.now[:] = self.before.values()
        else:
            self.restore([*self.changed()])

    def restore(self, keys: Iterable[Any]) -> None:
        """Put entries of a dict back."""
        for key in keys:
            if key in self.before:
                self.now[key] = self.before[key]
            else:
                self.now.pop(key, None)


class Attributes:
    """The attributes of a module and of all below it.

    Attributes:
        left: names of attributes in which the last training forward left something else.
        settled: names that a warning named, or on which no forward depends.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.caches = _lru_caches(module)
        self.left: set[str] = set()
        self.settled: set[str] = set()
        self.forwards = self.seen = 0
        self._look()

    def enter(self, training: bool) -> None:
        """Begin a forward; what it finds may have been changed by the user since the last."""
        if not self.forwards:
            if (training and self.seen < _WATCHED) or self._is_changed():
                self._look()
            for cache in self.caches:
                cache.cache_clear()
            for one in self.copied:
                one.before.update(one.now)
        self.forwards += 1

    def exit(self, training: bool, failed: bool) -> None:
        """End a forward; put back what the next one must not find."""
        self.forwards -= 1
        if self.forwards:  # it goes on with what this one has computed
            return
        for cache in self.caches:
            cache.cache_clear()
        if training and not failed and self.seen < _WATCHED:
            changed = [(one, key) for one in self.tables for key in one.changed()]
            names = {joined(one.path, str(key)) for one, key in changed if key not in _OF_ALL}
            self.left = names - self.settled
            self.seen += 1
        if self._is_changed():
            self._put_back(training, failed)

    def warn_of_memory(self) -> None:
        """Warn that a forward reads what the one before it left, which no state has."""
        warn(
            f"the forward reads what the one before it left in the attributes {sorted(self.left)} "
            "of the module, which no state has: those that were None or absent are put back after "
            "each step, others a resumed run begins without. If the next step needs them, as a "
            "hidden state, register a buffer in __init__ and write to it",
            ModuleStateWarning,
        )

    def _put_back(self, training: bool, failed: bool) -> None:
        registered = self._take_away()
        if _count_code(self.module) != self.code:
            self._adopt()
        filled = [one for one in self.dicts if one.filled()]
        modules = {one.module for one in filled}
        beside = [one for one in self.dicts if one.is_own and one.module in modules]
        numbers = {joined(one.path, name) for one in beside for name in one.changed_numbers()}
        numbers -= self.settled
        for one in [*filled, *beside]:
            one.restore(key for key in [*one.changed()] if key not in _OF_ALL)
        self._look()
        if registered and not failed:
            raise ModelError(
                f"the forward registered {registered[:8]}, absent or None when the program was "
                "made. No state has them: parameters would never be trained, buffers be lost. Make "
                "them in __init__; a buffer whose shape is not known as torch.zeros(0), one that "
                "is only a cache with persistent=False"
            )
        if numbers and training and not failed:
            self.settled |= numbers
            warn(
                f"the forward changed the numbers {sorted(numbers)} of the module with a table; "
                "both are put back, and each forward computes them again. To compute a table once, "
                "do so in __init__. A number that steps count needs a buffer",
                ModuleStateWarning,
            )

    def _take_away(self) -> list[str]:
        """Take away new parameters and persistent buffers, and return their paths."""
        found = [(one, name) for one in self.dicts for name in one.registered()]
        for one in self.dicts if found else ():
            # In the __dict__ there may have been an attribute of that name.
            one.restore(name for made, name in found if made.module is one.module)
        return [joined(one.path, name) for one, name in found]

    def _adopt(self) -> None:
        """Keep what was set up with hooks, such as a flag that they are there, but no caches."""
        for one in self.dicts:
            if one.is_own:
                caches = one.filled()
                one.before.update({key: now for key, now in one.now.items() if key not in caches})

    def _is_changed(self) -> bool:
        # At each step, so this takes few calls.
        return list(map(len, self.watched)) != self.sizes or any(
            table.get(key) is not None for table, key in self.empty
        )

    def _look(self) -> None:
        """Copy the attributes, and note which dicts may grow and which places are empty."""
        self.tables = tables_of(self.module)
        self.dicts = [one for one in self.tables if isinstance(one.now, dict)]
        # Forwards of torch's layers keep nothing; hooks may put attributes and buffers there.
        own = [one for one in self.dicts if not _is_of_torch(one.module)]
        few = [one for one in self.dicts if one.is_own or one.now is one.module._buffers]
        layers = [one for one in few if _is_of_torch(one.module)]
        self.copied = [one for one in own if one.is_own]
        self.watched: list[dict[Any, Any]] = [one.now for one in [*own, *layers]]
        self.sizes = list(map(len, self.watched))
        self.empty = [(now, key) for now in self.watched for key in now if now[key] is None]
        self.code = _count_code(self.module)


def tables_of(module: nn.Module) -> list[Table]:
    """Return the attributes of a module and of all below it, and the dicts and lists among them."""
    found = []
    for path, one in module.named_modules():
        own = vars(one)
        found.append(Table(path, one, own, own.copy()))
        for name, value in own.items():
            if type(value) in (dict, list):
                at = path if name in _OF_ALL else joined(path, name)
                found.append(Table(at, one, value, entries(value)))
    return found


def entries(table: Any) -> dict[Any, Any]:
    """Return a copy of a dict, or the items of a list by index."""
    return table.copy() if isinstance(table, dict) else dict(enumerate(table))


def _is_of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _lru_caches(module: nn.Module) -> list[Any]:
    """Return the caches of methods and properties."""
    classes = {base for one in module.modules() for base in type(one).__mro__}
    values = [value for one in classes for value in vars(one).values()]
    functions = [value.fget if isinstance(value, property) else value for value in values]
    return [one for one in functions if isinstance(one, _LRU_CACHE)]


def _count_code(module: nn.Module) -> int:
    """Return how many hooks and submodules there are."""
    return sum(len(vars(one).get(name, ())) for one in module.modules() for name in _CODE)


def _has(value: Any, kinds: Any) -> bool:
    """Return whether a value is of some kind, or has tensors in nested dicts, lists and tuples."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(_has(one, Tensor) for one in value)
    return isinstance(value, kinds)


def joined(path: str, name: str) -> str:
    """Return the path of an attribute of a module."""
    return f"{path}.{name}" if path else name
