"""Validate the records of a manifest before any payload is read or memory allocated.

A manifest may come from an untrusted source. Afterwards no record names a file outside the
checkpoint, no tensor lies outside its file or overlaps another, and all tensors together need no
more memory than the files have bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.records import CHUNK, File, Leaf
from functrain.checkpoint.format.tensor_bytes import is_dense

_DIMENSIONS = 64  # the limit of torch's kernels
_LARGEST = 1 << 62
_NAME = re.compile(r"[A-Za-z0-9][\w.~-]{0,150}\.safetensors", re.ASCII)


def check(files: Sequence[File], leaves: Sequence[Leaf]) -> None:
    """Check the records for contradictions.

    Raises:
        ValueError: records contradict each other or themselves.
    """
    ends: dict[str, int] = {}
    for file in files:
        if not (isinstance(file.name, str) and _NAME.fullmatch(file.name)) or file.name in ends:
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
    """Check that tensors are adjacent without gap or overlap, as safetensors requires."""
    own = [leaf for leaf in leaves if leaf.alias_of is None]
    # Empty tensors sort before the tensor at the same offset.
    for leaf in sorted(own, key=lambda leaf: (leaf.offset, leaf.length)):
        if leaf.offset != ends.get(leaf.file):
            raise ValueError(f"impossible offset of {leaf.path}: {leaf.file!r}, {leaf.offset}")
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
        valid = len(leaf.stride) == len(leaf.shape) and all(map(_is_size, leaf.stride))
        if not valid or not is_dense(leaf.shape, leaf.stride):
            return "stride"
    return None


def _tie_problem(index: int, leaves: Sequence[Leaf]) -> str | None:
    leaf, first = leaves[index], leaves[index].alias_of
    if type(first) is not int or not 0 <= first < index or leaves[first].alias_of is not None:
        return "alias"
    twin = attrs.evolve(leaves[first], path=leaf.path, alias_of=first)
    return None if type(leaf.path) is str and leaf == twin else "alias"


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST
