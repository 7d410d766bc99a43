"""Compare checkpoints or runs by their files, reading only the tensors that differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path as Location
from typing import Any

import attrs
import orjson
import torch

from functrain import tree
from functrain.checkpoint import Leaf, lazy, verify
from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.outline import Branch, Entry, Scalar, TensorLeaf, outline
from functrain.cli.checkpoint_argument import ChosenCheckpoint, open_checkpoint
from functrain.testing.bisect.records import Record, by_checkpoints, by_digests, by_logs
from functrain.tree import Difference, Path

_PLAIN = (bool, int, float, str, bytes, type(None))


@attrs.frozen(eq=False)
class Comparison:
    """Two checkpoints, or two runs.

    Attributes:
        digests: the first difference of their state hashes.
        step: the first step with different training states.
    """

    targets: list[ChosenCheckpoint]
    differences: list[Difference]
    of_runs: bool = False
    logs: Record | None = None
    digests: Record | None = None
    step: int | None = None

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences and self.logs is None and self.digests is None


def differences(first: ChosenCheckpoint, second: ChosenCheckpoint) -> list[Difference]:
    """Return the bitwise differences of two checkpoints, in the order of the first.

    Tensors with equal hashes in the manifests are not read; their bytes are equal if both verify.
    """
    entries = [{e.path: e for e in outline(target.manifest)} for target in (first, second)]
    return tree.diff(_tree(first, *entries), _tree(second, *reversed(entries)))


def _tree(
    target: ChosenCheckpoint, own: Mapping[Path, Entry], other: Mapping[Path, Entry]
) -> tree.Tree:
    """Return the saved tree without its classes, and without tensors that the other has too."""
    mapped = lazy(target.path)
    names = list(mapped)  # in the order of the manifest
    found: dict[Path, dict[Any, tree.Tree]] = {path: {} for path in own}
    built: tree.Tree = None
    for path, entry in reversed([*own.items()]):  # children before their parents
        match entry, other.get(path):
            case Branch(), _:
                built = _node(entry, dict(reversed(found[path].items())))
            case Scalar(), _:
                plain = type(entry.value) in _PLAIN
                built = entry.value if plain else _Json(orjson.dumps(entry.json).decode())
            case TensorLeaf(leaf=leaf), TensorLeaf(leaf=twin) if _form(leaf) == _form(twin):
                same = leaf.hashes == twin.hashes
                built = _Json("the same bytes") if same else mapped[names[entry.index]]
            case TensorLeaf(leaf=leaf), _:  # not read, because its form tells the difference
                built = torch.empty(leaf.shape, dtype=BY_NAME[leaf.dtype], device="meta")
        if path:
            found[path[:-1]][path[-1]] = built
    return built


class _Json(str):
    """A leaf whose JSON in the manifest stands for its value."""


def _form(leaf: Leaf) -> tuple[Any, ...]:
    return leaf.dtype, *leaf.shape


def _node(entry: Branch, children: dict[Any, tree.Tree]) -> tree.Tree:
    if entry.kind in ("list", "tuple"):
        return (list if entry.kind == "list" else tuple)(children.values())
    if entry.kind == "dict":
        return children
    # The scalars are, for example, the size of a sparse tensor, which is not in its parts.
    return _class(entry.name or entry.kind, orjson.dumps(entry.scalars))(children)


@cache
def _class(name: str, scalars: bytes) -> type[dict[Any, tree.Tree]]:
    """Return one class for each class of saved nodes, to compare them without importing any."""
    return type(name if scalars in (b"{}", b"null") else f"{name} {scalars.decode()}", (dict,), {})


def compare(first: Location, second: Location) -> Comparison:
    """Compare two checkpoints or runs by their files."""
    targets = [_verify(open_checkpoint(path)) for path in (first, second)]
    found = differences(*targets)
    ours, theirs = (target.run for target in targets)
    if ours is None or theirs is None:
        return Comparison(targets, found)
    part = by_checkpoints(ours, theirs) if found else None
    return Comparison(
        targets,
        found,
        of_runs=True,
        logs=by_logs(ours, theirs, whole=True),
        digests=by_digests(ours, theirs),
        step=None if part is None else part.step,
    )


def _verify(target: ChosenCheckpoint) -> ChosenCheckpoint:
    if target.run is None:  # the newest checkpoint of a run is already verified
        verify(target.path)
    return target
