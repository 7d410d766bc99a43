"""Read the tensors of a checkpoint whose manifest was read, whole or in parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.checkpoint.format.changed_buffers import Began, noted
from functrain.checkpoint.format.encoding import decode
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.mismatches import counterparts, devices
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.tensor_bytes import is_here
from functrain.checkpoint.placed_loading import read_placed
from functrain.checkpoint.storage import reading
from functrain.checkpoint.translate_errors import manifest_errors, read_errors
from functrain.distributed import current
from functrain.tree import Tree
from functrain.tree.placed import is_placed


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
                found |= read_placed(self.path, manifest, placed, current().rank, self.verify)
        return [found.get(index) for index in range(count)]

    def placed(self, json: Json, like: Any) -> dict[int, Tensor]:
        """Return by index the ``DTensor`` that ``like`` has in place of a saved tensor."""
        with manifest_errors(self.path):
            return {i: tensor for i, tensor in counterparts(json, like) if is_placed(tensor)}

    def decode(self, json: Json, tensors: list[Any], like: Any) -> Tree:
        """Build the tree of a structure."""
        with manifest_errors(self.path):
            return decode(json, tensors, like, self.types)

    def _targets(self, like: Any) -> dict[int, torch.device]:
        leaves = self.manifest.leaves
        if self.device is not None:
            return dict.fromkeys(range(len(leaves)), self.device)
        saved = {name: _here(name) for name in {leaf.device for leaf in leaves}}
        targets = {index: saved[leaf.device] for index, leaf in enumerate(leaves)}
        for index, wanted in devices(self.manifest.structure, like):
            twin = leaves[index].alias_of
            targets[index if twin is None else twin] = wanted
        return targets


def _here(name: str) -> torch.device:
    """Return the device of a name if this machine has it, else the CPU."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device") from error
    return device if is_here(device) else torch.device("cpu")
