"""Read the tensors of a checkpoint whose manifest was read, whole or in parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from functrain.checkpoint.format.changed_in_use import Began, noted
from functrain.checkpoint.format.decoding import decode
from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.mismatches import counterparts
from functrain.checkpoint.format.placed import holding
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import qualified_name
from functrain.checkpoint.format.tensor_bytes import (
    contiguous_stride,
    empty,
    is_here,
    memory,
    with_stride,
)
from functrain.checkpoint.manifest_file import manifest_errors, read_errors
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.checkpoint.storage import reading
from functrain.checkpoint.storage.reading import Part, read_parts
from functrain.core.rng import Rng
from functrain.core.state import Counters, TrainState
from functrain.own_steps.states import CustomState, JointState, joint_class
from functrain.tree import Tree
from functrain.tree.placed import is_placed, local

_OWN_TYPES = (TrainState, CustomState, Counters, Rng, RunState, LoopState)
# The last two fields of a joint state are its seed and counters, the others its programs.
_FAMILIES = {qualified_name(JointState): lambda fields: joint_class(fields[:-2])}


@attrs.frozen(eq=False)
class CheckpointReader:
    """A checkpoint whose manifest was read, with the options for reading its tensors."""

    path: Path
    manifest: Manifest
    types: Sequence[type]
    device: torch.device | None
    verify: bool

    @property
    def began(self) -> Began:
        """The initial shapes and dtypes of the buffers, as the run recorded them."""
        return noted(self.manifest.info)

    def tensors(
        self,
        like: Any,
        wanted: Collection[int] | None = None,
        placed: Mapping[int, Tensor] | None = None,
    ) -> list[Any]:
        """Read the wanted tensors into a list by index; those in ``placed`` become ``DTensor``s."""
        count, manifest = len(self.manifest.leaves), self.manifest
        with manifest_errors(self.path):
            if not all(0 <= index < count for index in wanted or ()):
                raise ValueError(f"the structure names a tensor beyond the {count} there are")
            targets = self._targets(like)
        if placed:
            wanted = set(range(count) if wanted is None else wanted).difference(placed)
        with read_errors(self.path):
            found = reading.read(
                self.path,
                manifest.files,
                manifest.leaves,
                targets,
                wanted=wanted,
                verify=self.verify,
            )
            if placed:
                found |= read_placed(self.path, manifest, placed, dist.get_rank(), self.verify)
        return [found.get(index) for index in range(count)]

    def placed(self, json: Json, like: Any) -> dict[int, Tensor]:
        """Return by index the ``DTensor`` that ``like`` has in place of a saved tensor."""
        with manifest_errors(self.path):
            return {i: tensor for i, tensor in counterparts(json, like) if is_placed(tensor)}

    def decode(self, json: Json, tensors: list[Any], like: Any) -> Tree:
        with manifest_errors(self.path):
            return decode(json, tensors, like, (*_OWN_TYPES, *self.types), _FAMILIES)

    def _targets(self, like: Any) -> dict[int, torch.device]:
        leaves = self.manifest.leaves
        if self.device is not None:
            return dict.fromkeys(range(len(leaves)), self.device)
        saved = {name: _here(name) for name in {leaf.device for leaf in leaves}}
        targets = {index: saved[leaf.device] for index, leaf in enumerate(leaves)}
        for index, wanted in counterparts(self.manifest.structure, like):
            if not wanted.is_meta:
                twin = leaves[index].alias_of
                targets[index if twin is None else twin] = wanted.device
        return targets


def _here(name: str) -> torch.device:
    """Return the device of a name if this machine has it, else the CPU."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device") from error
    return device if is_here(device) else torch.device("cpu")


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
