"""What is to be saved, taken apart and checked: all that must happen before a step goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from functrain.checkpoint.encoding import encode, encode_plain
from functrain.checkpoint.overlaps import aliases
from functrain.checkpoint.scalars import Json
from functrain.tree import Path, Tree


@attrs.frozen(eq=False)
class Snapshot:
    """A tree as JSON and a list of tensors, with what is kept beside it.

    Attributes:
        structure: the tree, see :mod:`functrain.checkpoint.structure`.
        tensors: its tensors with their paths; held by reference.
        same: for each the index of an earlier one that is the same memory, or ``None``.
        step: updates made.
        metrics: JSON of the metrics by name.
        info: JSON of what the caller added.
    """

    structure: Json
    tensors: list[tuple[Path, Tensor]]
    same: list[int | None]
    step: int | None
    metrics: Json
    info: Json


def snapshot(
    tree: Tree,
    *,
    info: Any = None,
    step: int | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Take a tree apart; its tensors are not read yet.

    Args:
        tree: what is to be saved.
        info: plain data.
        step: updates made.
        metrics: numbers by name.

    Raises:
        UnsupportedLeafError: something in it could not be given back exactly.

    Example:
        >>> import torch
        >>> [path for path, _ in snapshot({"w": torch.ones(2), "lr": 0.1}).tensors]
        [('w',)]
    """
    structure, tensors = encode(tree)
    numbers = {
        name: value.item() if isinstance(value, Tensor) else value
        for name, value in (metrics or {}).items()
    }
    return Snapshot(
        structure=structure,
        tensors=tensors,
        same=aliases(tensors),
        step=step,
        metrics=encode_plain(numbers, "metrics"),
        info=encode_plain(info, "info"),
    )
