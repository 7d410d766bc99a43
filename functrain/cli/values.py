"""Tensors of a checkpoint, a few at a time, verified, without the tree around them."""

from __future__ import annotations

from pathlib import Path

import attrs
from torch import Tensor

from functrain.checkpoint import Leaf, Manifest
from functrain.checkpoint.storage import reading
from functrain.errors import CheckpointReadError, FunctrainError


def value_of(place: Path, manifest: Manifest, leaf: Leaf) -> Tensor:
    """One tensor, row-major, on the CPU.

    Args:
        place: the checkpoint's directory.
        manifest: of it.
        leaf: which tensor.

    Raises:
        CheckpointCorruptError: its bytes are not those that were saved.
        CheckpointReadError: the system refused to read it.
    """
    alone = attrs.evolve(leaf, stride=None, alias_of=None)
    file = [file for file in manifest.files if file.name == leaf.file]
    try:
        return reading.read(place, file, [alone], {})[0]
    except FunctrainError:
        raise
    except OSError as error:
        raise CheckpointReadError(place, error) from error
