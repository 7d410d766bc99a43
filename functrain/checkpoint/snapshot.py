"""What is to be saved, taken apart and checked: all that must happen before a step goes on."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from torch import Tensor

from functrain.checkpoint.format.aliasing import aliases
from functrain.checkpoint.format.encoding import encode, encode_plain
from functrain.checkpoint.format.layout import readable
from functrain.checkpoint.format.scalars import Json
from functrain.errors import CheckpointChangedError, UnsupportedError
from functrain.errors.nearest import nearest
from functrain.tree import Path, Tree, path_string

_MOST_STEPS = 10**18


@attrs.frozen(eq=False)
class Snapshot:
    """A tree as JSON and a list of tensors, with what is kept beside it.

    Attributes:
        structure: the tree, see :mod:`functrain.checkpoint.format.structure`.
        tensors: its tensors with their paths; held by reference.
        names: their paths as text.
        frozen: names of those that do not change, which go to a file of their own.
        same: for each the index of an earlier one that is the same memory, or ``None``.
        step: updates made.
        metrics: JSON of the metrics by name.
        info: JSON of what the caller added.
        devices: where each tensor was.
        versions: how often each tensor had been changed in place, where torch counts it.
    """

    structure: Json
    tensors: list[tuple[Path, Tensor]]
    names: list[str]
    frozen: frozenset[str]
    same: list[int | None]
    step: int | None
    metrics: Json
    info: Json
    devices: list[str]
    versions: list[int | None]

    def confirm(self) -> None:
        """Make sure that no tensor was changed in place since it was taken.

        Raises:
            CheckpointChangedError: names the first that was.
        """
        for (path, tensor), version in zip(self.tensors, self.versions, strict=True):
            if version is not None and tensor._version != version:
                raise CheckpointChangedError(path_string(path))


def snapshot(
    tree: Tree,
    *,
    info: Any = None,
    step: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    frozen: Iterable[str] = (),
) -> Snapshot:
    """Take a tree apart; its tensors are not read yet.

    Args:
        tree: what is to be saved.
        info: plain data.
        step: updates made.
        metrics: numbers by name.
        frozen: dotted paths of tensors that do not change.

    Raises:
        UnsupportedError: something in it could not be given back exactly.
        ValueError: the step is no count of updates.

    Example:
        >>> import torch
        >>> [path for path, _ in snapshot({"w": torch.ones(2), "lr": 0.1}).tensors]
        [('w',)]
    """
    structure, tensors = encode(tree)
    numbers = {name: _number(name, value) for name, value in (metrics or {}).items()}
    names = [readable(path_string(path)) for path, _ in tensors]
    return Snapshot(
        structure=structure,
        tensors=tensors,
        names=names,
        frozen=_named(frozen, names),
        same=aliases(tensors),
        step=None if step is None else _step(step),
        metrics=encode_plain(numbers, "metrics"),
        info=encode_plain(info, "info"),
        devices=["cpu" if tensor.is_cpu else str(tensor.device) for _, tensor in tensors],
        versions=versions([tensor for _, tensor in tensors]),
    )


def _named(frozen: Iterable[str], names: list[str]) -> frozenset[str]:
    given = frozenset([frozen] if isinstance(frozen, str) else frozen)
    unknown = sorted(given.difference(names))
    if unknown:
        raise ValueError(
            f"frozen: there is no tensor {unknown[0]!r} in the tree{nearest(unknown[0], names)}"
        )
    return given


def _number(name: str, value: Any) -> Any:
    """A metric as a Python number, whatever library it comes from."""
    if not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (RuntimeError, ValueError) as error:
        raise UnsupportedError(
            f"metrics.{name} is a {type(value).__name__} of shape {list(value.shape)}; a metric is "
            "one number"
        ) from error


def _step(step: Any) -> int:
    count = operator.index(step)
    if not 0 <= count < _MOST_STEPS:
        raise ValueError(
            f"a step is a count of updates below {_MOST_STEPS}, so it cannot be {step}"
        )
    return count


def versions(tensors: list[Tensor]) -> list[int | None]:
    """Torch's count of in-place changes of each; inference tensors have none."""
    return [None if tensor.is_inference() else tensor._version for tensor in tensors]
