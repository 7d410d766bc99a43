"""A module with its attributes as it was made, and its caches, which a forward fills."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from torch import Tensor, nn

from functrain.errors import ModelError

_OF_ALL = frozenset(vars(nn.Module()))
_REGISTERED = ["_modules", *(name for name in _OF_ALL if name.endswith("hooks"))]
NUMBERS = (bool, int, float)


@attrs.define(eq=False)
class Part:
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
    def of(cls, path: str, module: nn.Module) -> Part:
        """Return a module as it is now."""
        kept = {name: value for name, value in vars(module).items() if name not in _OF_ALL}
        dicts = {name: value.copy() for name, value in kept.items() if type(value) is dict}
        names = frozenset((*module._buffers, *module._parameters, *module._modules))
        unset = {name for name, buffer in module._buffers.items() if buffer is None}
        unset &= module._non_persistent_buffers_set
        return cls(path, module, kept, dicts, names, frozenset(unset), code_size(module))

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
        self.code = code_size(self.module)

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
            if isinstance(old, NUMBERS) and isinstance(now, NUMBERS) and now != old:
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
        return isinstance(value, float) or bool(tensors_in(value))

    def _is_filled(self, name: str, buffer: Tensor | None) -> bool:
        if buffer is None or name not in self.module._non_persistent_buffers_set:
            return False
        return name in self.unset or name not in self.names

    def _is_of_torch(self) -> bool:
        """Return whether it is a layer of torch, whose forwards keep nothing."""
        return type(self.module).__module__.startswith("torch.")


def code_size(module: nn.Module) -> int:
    """Return how many hooks and submodules a module has."""
    own = vars(module)
    return sum(len(own.get(name, ())) for name in _REGISTERED)


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in tensors_in(one)]
    return []


def _has_more(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Return whether a dict has new entries with tensors."""
    return any(tensors_in(value) for key, value in now.items() if key not in before)


def joined(path: str, name: str) -> str:
    """Return the path of an attribute of a module."""
    return f"{path}.{name}" if path else name
