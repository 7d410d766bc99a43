"""Find out whether code that is lent a state writes to it, which it must not do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import ImpurityError
from functrain.tree.objects import is_array


class Versions:
    """Everything in a tree that can be written to, as it is now.

    Torch counts the writes to a tensor, other than those through ``.data`` and ``.numpy()``; the
    items of lists and mutable objects, and the elements of arrays, are kept.

    Args:
        value: any tree.
        where: its place, with which the paths in messages begin.
    """

    def __init__(self, value: Any, where: str) -> None:
        self._held = [(path, part, _contents(part)) for path, part in _writable(value, (where,))]

    def refuse_writes(self, what: str, advice: str = "") -> None:
        """Refuse code that has written to the tree."""
        found = [
            f"{'.'.join(map(str, path))} was changed in place: {_remedy(part)}"
            for path, part, before in self._held
            if not _is_same(before, _contents(part))
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


def _is_same(before: Any, after: Any) -> bool:
    if not isinstance(before, list):
        return bool(before == after)
    pairs = zip(before, after, strict=False)
    return len(before) == len(after) and all(
        key == other and child is one for (key, child), (other, one) in pairs
    )


def _remedy(part: Any) -> str:
    if isinstance(part, Tensor) or is_array(part):
        kind, copy = ("tensor", "clone") if isinstance(part, Tensor) else ("array", "copy")
        return f"compute another {kind}, x + y instead of x += y, or write to a copy, x.{copy}()"
    another = {list: "[*x, y]", dict: "{**x, key: y}"}
    shown = next((made for cls, made in another.items() if isinstance(part, cls)), None)
    return f"make another one, {shown or 'attrs.evolve(x, field=y)'}"
