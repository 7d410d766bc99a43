"""Load the parts of tensors that this rank holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.placed import holding
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.format.tensor_bytes import contiguous_stride, empty, memory, with_stride
from functrain.checkpoint.storage.reading import Part, read_parts
from functrain.tree.placed import local


def read_placed(
    path: Path, manifest: Manifest, placed: Mapping[int, Any], rank: int, verify: bool
) -> dict[int, Tensor]:
    """Read the parts of this rank as ``DTensor``s by index, placed as those in ``placed``."""
    parts: list[Part] = []
    made: dict[tuple[Any, ...], tuple[Tensor, Leaf, Any]] = {}
    keys: dict[int, tuple[Any, ...]] = {}
    for index, like in placed.items():
        leaf = manifest.leaves[index]
        twin = index if leaf.alias_of is None else leaf.alias_of
        keys[index] = key = (twin, like.device_mesh, like.placements)
        if key not in made:
            first, part = _allocated(leaf, like, rank)
            parts.append(Part(leaf, first, memory(part)))
            made[key] = part, leaf, like
    read_parts(path, manifest.files, [part for part in parts if part.target], verify=verify)
    tensors = {key: _placed(part, leaf, like) for key, (part, leaf, like) in made.items()}
    return {index: tensors[key] for index, key in keys.items()}


def cut(whole: Tensor, like: Any, rank: int) -> Tensor:
    """Return a plain tensor placed as ``like``, which has the same shape."""
    first, last = holding(like).rows(rank)
    part = whole[first:last] if last - first < len(like) else whole
    if first == last:
        part = whole.new_empty(local(like).shape)
    return _dtensor(part.clone(), like, tuple(whole.stride()))


def _allocated(leaf: Leaf, like: Any, rank: int) -> tuple[int, Tensor]:
    """Return the first byte of a leaf that a rank holds, and memory for its part."""
    first, last = holding(like).rows(rank)
    dtype = BY_NAME[leaf.dtype]
    if first == last or leaf.length == 0:
        return 0, empty(tuple(local(like).shape), dtype)
    if not leaf.shape:
        return 0, empty((), dtype)
    row = leaf.length // leaf.shape[0]
    return first * row, empty((last - first, *leaf.shape[1:]), dtype)


def _placed(part: Tensor, leaf: Leaf, like: Any) -> Tensor:
    if leaf.stride is None:
        return _dtensor(part, like, contiguous_stride(leaf.shape))
    if part.shape[1:] == leaf.shape[1:]:
        rows = torch.empty_strided(leaf.shape, leaf.stride, device="meta")[: len(part)]
        part = with_stride(part, torch.empty_like(rows).stride())
    return _dtensor(part, like, leaf.stride)


def _dtensor(part: Tensor, like: Any, stride: tuple[int, ...]) -> Tensor:
    own = part.to(local(like).device)
    made: Tensor = type(like).from_local(
        own,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=stride,
    )
    return made
