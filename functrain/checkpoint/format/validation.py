"""Whether what a manifest says can be true, before a byte of payload is read or room taken for it.

A manifest may come from a stranger. After this no record names a file elsewhere, no tensor lies
outside of its file or on another one, and all of them together need no more room than the files
have.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.records import CHUNK, File, Leaf
from functrain.checkpoint.format.tensor_bytes import is_dense

_DIMENSIONS = 64  # what torch's kernels take
_LARGEST = 1 << 62
_NAME = re.compile(r"[A-Za-z0-9][\w.~-]{0,150}\.safetensors", re.ASCII)


def check(files: Sequence[File], leaves: Sequence[Leaf]) -> None:
    """Check records against each other.

    Raises:
        ValueError: they contradict each other, or themselves.
    """
    ends: dict[str, int] = {}
    for file in files:
        if not _is_name(file.name) or file.name in ends:
            raise ValueError(f"impossible name of a payload file: {file.name!r}")
        if not (_is_size(file.length) and _is_size(file.header_length)):
            raise ValueError(f"impossible length of {file.name}")
        ends[file.name] = file.header_length
    for index, leaf in enumerate(leaves):
        problem = _leaf_problem(leaf) if leaf.alias_of is None else _tie_problem(index, leaves)
        if problem:
            raise ValueError(f"impossible {problem} of leaf {index}, {str(leaf.path)[:200]}")
    _check_places(ends, leaves)
    for file in files:
        if ends[file.name] != file.length:
            raise ValueError(f"{file.name} has {file.length} bytes, its tensors {ends[file.name]}")


def _check_places(ends: dict[str, int], leaves: Sequence[Leaf]) -> None:
    """Tensors stand side by side without gap or overlap, as the safetensors format has it."""
    own = [leaf for leaf in leaves if leaf.alias_of is None]
    # Empty ones before what is at the same place.
    for leaf in sorted(own, key=lambda leaf: (leaf.offset, leaf.length)):
        if leaf.offset != ends.get(leaf.file):
            raise ValueError(f"{leaf.path} is not where it can be: {leaf.file!r}, {leaf.offset}")
        ends[leaf.file] += leaf.length


def _leaf_problem(leaf: Leaf) -> str | None:
    if not type(leaf.path) is type(leaf.device) is type(leaf.file) is str:
        return "path, device or file"
    if leaf.dtype not in BY_NAME:
        return f"dtype {leaf.dtype!r}"
    if len(leaf.shape) > _DIMENSIONS or not all(map(_is_size, leaf.shape)):
        return "shape"
    length = room = BY_NAME[leaf.dtype].itemsize
    for size in leaf.shape:
        length, room = length * size, room * max(size, 1)
    if room > _LARGEST or leaf.length != length or not _is_size(leaf.offset):
        return "length or offset"
    if len(leaf.hashes) != -(-length // CHUNK):
        return "number of hashes"
    if leaf.stride is not None:
        sound = len(leaf.stride) == len(leaf.shape) and all(map(_is_size, leaf.stride))
        if not sound or not is_dense(leaf.shape, leaf.stride):
            return "stride"
    return None


def _tie_problem(index: int, leaves: Sequence[Leaf]) -> str | None:
    leaf, first = leaves[index], leaves[index].alias_of
    if type(first) is not int or not 0 <= first < index or leaves[first].alias_of is not None:
        return "alias"
    twin = attrs.evolve(leaves[first], path=leaf.path, alias_of=first)
    return None if type(leaf.path) is str and leaf == twin else "alias"


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST
