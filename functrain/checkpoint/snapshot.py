"""Encode and check a tree before it is written: the part of saving that holds up the step."""

from __future__ import annotations

import operator
import platform
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.checkpoint.format.aliasing import aliases
from functrain.checkpoint.format.decoding import decode
from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.encoding import encode, encode_plain
from functrain.checkpoint.format.layout import Layout, layouts, utf8_safe
from functrain.checkpoint.format.manifest import FORMAT, Manifest
from functrain.checkpoint.format.placed import Holding, holding
from functrain.checkpoint.format.records import File, Leaf
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.tensor_bytes import preserved_stride
from functrain.errors import CheckpointChangedError, UnsupportedError
from functrain.errors.nearest import nearest
from functrain.tree import Path, Tree, path_string
from functrain.tree.placed import is_placed, local

_MOST_STEPS = 10**18


@attrs.frozen(eq=False)
class Snapshot:
    """A tree as JSON and a list of tensors, with its metadata.

    Attributes:
        structure: the tree, see :mod:`functrain.checkpoint.format.structure`.
        tensors: its tensors with their paths; held by reference. Of a ``DTensor``, the part of
            this rank.
        placed: by index, which ranks hold which part of a ``DTensor``.
        names: their paths as text.
        frozen: names of the tensors that never change, which go to a separate file.
        same: for each tensor the index of an earlier one with the same memory, or ``None``.
        info: JSON of the caller's data.
        versions: torch's count of in-place changes of each tensor, or ``None``.
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
    placed: Mapping[int, Holding] = attrs.field(factory=dict)

    @property
    def whole(self) -> list[tuple[Path, Tensor]]:
        """The tensors with their paths; a meta tensor of the whole shape for each that is cut."""
        return [
            (path, self.placed[index].outline() if index in self.placed else tensor)
            for index, (path, tensor) in enumerate(self.tensors)
        ]

    def plan(self) -> list[Layout]:
        """Return the layout of each payload file."""
        return layouts(self.whole, self.names, self.same, self.frozen)

    def manifest(
        self,
        plan: list[Layout],
        files: tuple[File, ...],
        hashes: Mapping[int, tuple[str, ...]],
    ) -> Manifest:
        """Return the manifest of the payload that was written."""
        return Manifest(
            format=FORMAT,
            versions=_programs(),
            saved_at=time.time(),
            step=self.step,
            metrics=decode(self.metrics, []),
            info=decode(self.info, []),
            structure=self.structure,
            leaves=self._leaves(plan, hashes),
            files=files,
        )

    def _leaves(
        self, plan: list[Layout], hashes: Mapping[int, tuple[str, ...]]
    ) -> tuple[Leaf, ...]:
        places = {
            index: (layout.name, offset)
            for layout in plan
            for index, offset in zip(layout.indices, layout.offsets, strict=False)
        }
        leaves: list[Leaf] = []
        for index, ((_, tensor), name, first) in enumerate(
            zip(self.whole, self.names, self.same, strict=True)
        ):
            if first is not None:
                leaves.append(attrs.evolve(leaves[first], path=name, alias_of=first))
                continue
            file, offset = places[index]
            leaf = Leaf(
                path=name,
                dtype=dtype_name(tensor.dtype),
                shape=tuple(tensor.shape),
                file=file,
                offset=offset,
                length=tensor.nbytes,
                hashes=hashes[index],
                stride=preserved_stride(tensor),
                device=self.devices[index],
            )
            leaves.append(leaf)
        return tuple(leaves)

    def confirm(self) -> None:
        """Raise if a tensor was changed in place since the snapshot."""
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
    """Encode a tree without reading the values of its tensors.

    Example:
        >>> import torch
        >>> [path for path, _ in snapshot({"w": torch.ones(2), "lr": 0.1}).tensors]
        [('w',)]
    """
    structure, found = encode(tree)
    placed = {i: holding(leaf, path) for i, (path, leaf) in enumerate(found) if is_placed(leaf)}
    tensors = [(path, local(leaf) if i in placed else leaf) for i, (path, leaf) in enumerate(found)]
    numbers = {name: _number(name, value) for name, value in (metrics or {}).items()}
    names = [utf8_safe(path_string(path)) for path, _ in tensors]
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
        placed=placed,
    )


def _programs() -> dict[str, str]:
    try:
        own = metadata.version("functrain")
    except metadata.PackageNotFoundError:
        own = "unknown"
    return {"functrain": own, "torch": torch.__version__, "python": platform.python_version()}


def _named(frozen: Iterable[str], names: list[str]) -> frozenset[str]:
    given = frozenset([frozen] if isinstance(frozen, str) else frozen)
    unknown = sorted(given.difference(names))
    if unknown:
        raise ValueError(
            f"frozen: there is no tensor {unknown[0]!r} in the tree{nearest(unknown[0], names)}"
        )
    return given


def _number(name: str, value: Any) -> Any:
    """Convert a metric of any library to a Python number."""
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
    """Return torch's count of in-place changes of each tensor; inference tensors have none."""
    return [None if tensor.is_inference() else tensor._version for tensor in tensors]
