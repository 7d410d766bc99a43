"""The dicts that functrain returns: of metrics, and the read-only ones of a state."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, NoReturn

import torch.utils._pytree as pytree

from functrain.errors import UnknownNameError, UnsupportedError

_READ_ONLY = (
    "a state is a value, and its mappings are read-only. Make another state from it: "
    "attrs.evolve(state, params={**state.params, path: tensor}); dict(state.params) is a copy "
    "that can be written to"
)


_MORE_METRICS = ". A loss adds metrics: return functrain.Loss(value, metrics={name: value})"


class NamedDict(dict[str, Any]):
    """The metrics of a step by name; a missing one is an error that proposes the nearest.

    It reads like a plain dict, at the same speed. Copies and pickles are plain dicts.

    Example:
        >>> NamedDict(loss=1.0)["los"]
        Traceback (most recent call last):
        functrain.errors.UnknownNameError: this step has no 'los' (did you mean 'loss'?); ...
    """

    __slots__ = ()

    def __missing__(self, name: object) -> NoReturn:
        raise UnknownNameError(name, self, "this step", _MORE_METRICS)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __copy__(self) -> dict[str, Any]:
        return dict(self)


class FrozenDict(dict[str, Any]):
    """A dict without the methods that change one.

    It reads like a plain dict, at the same speed. ``dict(frozen)``, ``{**frozen, key: value}``,
    ``frozen | other`` and copies are plain dicts; a pickle is an ``OrderedDict``, so
    saved ``params`` can be read without functrain.

    Example:
        >>> params = FrozenDict(w=1)
        >>> {**params, "w": 2}
        {'w': 2}
        >>> params["w"] = 2
        Traceback (most recent call last):
        functrain.errors.UnsupportedError: a state is a value, and its mappings are read-only. ...
    """

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise UnsupportedError(_READ_ONLY)

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = _refuse

    def update(self, *given: Any, **more: Any) -> None:
        """Accept only present values, which ``torch.func.functional_call`` writes back."""
        if any(self.get(key, self) is not value for key, value in dict(*given, **more).items()):
            raise UnsupportedError(_READ_ONLY)

    def __missing__(self, name: object) -> NoReturn:
        raise UnknownNameError(name, self, "this mapping of the state")

    def __reduce__(self) -> tuple[Any, ...]:
        # The class of a state_dict, so torch.load reads it with weights_only=True.
        return OrderedDict, (), None, None, iter(self.items())

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)


def kind(value: Any) -> type:
    """Return the class of a node or leaf; functrain's own forms of a dict count as a dict.

    Example:
        >>> kind(FrozenDict(w=1)), kind([1])
        (<class 'dict'>, <class 'list'>)
    """
    return dict if type(value) in (FrozenDict, NamedDict) else type(value)


def frozen(value: Any) -> Any:
    """Return a tree whose dicts are read-only; lists are copied, other nodes and leaves kept.

    Args:
        value: a dict of tensors by path, a nesting of dicts and lists, or any leaf. Subclasses
            of ``dict`` such as ``OrderedDict`` are kept as they are.

    Example:
        >>> type(frozen({"exp_avg": {"w": 0.0}})["exp_avg"]).__name__
        'FrozenDict'
    """
    if type(value) is not dict:
        return type(value)(map(frozen, value)) if type(value) in (list, tuple) else value
    made = FrozenDict(value)
    if not _NODES.isdisjoint(map(type, value.values())):
        for key, child in value.items():
            if type(child) in _NODES:
                dict.__setitem__(made, key, frozen(child))
    return made


def thawed(value: Any) -> Any:
    """Return the same tree of plain dicts, for code that writes to a state it owns.

    Example:
        >>> type(thawed(frozen({"exp_avg": {"w": 0.0}}))["exp_avg"]).__name__
        'dict'
    """
    if type(value) not in (dict, FrozenDict):
        return type(value)(map(thawed, value)) if type(value) in (list, tuple) else value
    made = dict(value)
    if not _NODES.isdisjoint(map(type, value.values())):
        for key, child in value.items():
            if type(child) in _NODES:
                made[key] = thawed(child)
    return made


# Most dicts of a state hold only tensors, so checking all types at once is the fast path.
_NODES = frozenset({dict, FrozenDict, list, tuple})


def _register(cls: type[dict[str, Any]]) -> None:
    pytree.register_pytree_node(
        cls,
        lambda node: (list(node.values()), list(node)),
        lambda values, keys: cls(zip(keys, values, strict=True)),
        flatten_with_keys_fn=lambda node: (
            [(pytree.MappingKey(key), value) for key, value in node.items()],
            list(node),
        ),
        serialized_type_name=f"functrain.{cls.__name__}",
    )


for _cls in (FrozenDict, NamedDict):
    _register(_cls)
