"""Look into a checkpoint without loading it: its tree as the manifest tells it, and its tensors.

No class of the saved tree is imported or made, so that any checkpoint can be shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import attrs
import orjson
import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.format.scalars import Json, decode_scalar
from functrain.checkpoint.format.structure import Node, decode_node
from functrain.checkpoint.format.tensor_bytes import contiguous_stride
from functrain.checkpoint.manifest_file import (
    manifest_at,
    manifest_bytes,
    read_errors,
    retry_while_replaced,
)
from functrain.checkpoint.storage import reading
from functrain.errors import CheckpointCorruptError
from functrain.tree import Path, path_string

_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError)


@attrs.frozen(eq=False)
class Branch:
    """An inner node.

    Attributes:
        path: keys from the root.
        kind: ``dict``, ``list``, ``attrs`` and so on, or an unknown kind.
        name: qualified name of its class, if it has one.
        size: number of children.
        scalars: JSON of its other properties, such as the size of a sparse tensor.
    """

    path: Path
    kind: str
    name: str | None
    size: int
    scalars: Json = None

    @property
    def title(self) -> str:
        """The kind, or the last part of the class's name."""
        return self.kind if self.name is None else self.name.rpartition(".")[2]


@attrs.frozen(eq=False)
class TensorLeaf:
    """A tensor: its path, its record in the manifest, and its index there."""

    path: Path
    leaf: Leaf
    index: int


@attrs.frozen(eq=False)
class Scalar:
    """A scalar: its path, its value, and the JSON that restores it exactly."""

    path: Path
    value: Any
    json: Json


Entry = Branch | TensorLeaf | Scalar


def outline(manifest: Manifest) -> Iterator[Entry]:
    """Walk a saved tree, each node before its children.

    Unknown nodes of a newer minor version are walked if they hold tensors, and shown as JSON if
    they do not.

    Example:
        >>> import tempfile, torch
        >>> from functrain.checkpoint import read_manifest, save
        >>> place = save(tempfile.mkdtemp() + "/tree", {"w": torch.ones(2), "lr": 0.1})
        >>> [(type(entry).__name__, entry.path) for entry in outline(read_manifest(place))]
        [('Branch', ()), ('TensorLeaf', ('w',)), ('Scalar', ('lr',))]
    """
    # Not recursive, because a manifest may be deeper than the interpreter's stack.
    waiting: list[tuple[Path, Json]] = [((), manifest.structure)]
    while waiting:
        path, json = waiting.pop()
        try:
            entry, children = _entry(path, json, manifest.leaves)
        except _MALFORMED as error:
            raise CheckpointCorruptError(
                f"the structure is malformed at {path_string(path)}: {error}"
            ) from error
        yield entry
        waiting += reversed(children)


def read_tensor(place: FilePath, manifest: Manifest, leaf: Leaf) -> Tensor:
    """Read and verify one tensor, row-major, on the CPU, in memory of its own."""
    alone = attrs.evolve(leaf, stride=None, alias_of=None)
    file = [file for file in manifest.files if file.name == leaf.file]
    with read_errors(place):
        return reading.read(place, file, [alone], {})[0]


def _entry(
    path: Path, json: Json, leaves: tuple[Leaf, ...]
) -> tuple[Entry, list[tuple[Path, Json]]]:
    if _tag(json) == "$tensor":
        index = json["$tensor"]
        if type(index) is not int or not 0 <= index < len(leaves):
            raise ValueError(f"there is no tensor {index!r}")
        return TensorLeaf(path, leaves[index], index), []
    node = decode_node(json) or _unknown(json)
    if node is None:
        return Scalar(path, _value(json), json), []
    children = [((*path, key), child) for key, child in node.children]
    name = None if node.name is None else str(node.name)
    return Branch(path, node.kind, name, len(children), node.scalars), children


def _tag(json: Json) -> str:
    first = next(iter(json), "") if isinstance(json, dict) else ""
    return first if first.startswith("$") else ""


def _unknown(json: Json) -> Node | None:
    """Return a tagged object of unknown kind as a node if it holds tensors."""
    tag = _tag(json)
    if not tag or not _has_tensor(json):
        return None
    name = json[tag] if isinstance(json[tag], str) else None
    fields = [(key, child) for key, child in json.items() if key != tag or name is None]
    return Node(tag[1:], list(fields), name)


def _has_tensor(json: Json) -> bool:
    waiting = [json]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "$tensor" in value:
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _value(json: Json) -> Any:
    if _tag(json) == "$enum":
        return f"{str(json['$enum']).rpartition('.')[2]}({decode_scalar(json.get('value'))!r})"
    try:
        return decode_scalar(json)
    except ValueError:
        return orjson.dumps(json).decode()  # written by a newer minor version


def lazy(path: str | FilePath) -> dict[str, Tensor]:
    """Map the tensors of a checkpoint by dotted path; bytes are read on first use.

    Hashes are not checked; see :func:`functrain.checkpoint.verify` for that. Writing to a tensor
    never changes the file.

    Args:
        path: the checkpoint's directory.

    Raises:
        The errors of :func:`functrain.checkpoint.read_manifest`.
        CheckpointCorruptError: a file is missing or its length differs from that saved.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import save
        >>> place = save(FilePath(tempfile.mkdtemp()) / "c", {"params": {"w": torch.ones(2)}})
        >>> leaves = lazy(place)
        >>> list(leaves), leaves["params.w"]
        (['params.w'], tensor([1., 1.]))
    """
    return retry_while_replaced(path, _mapped)


def _mapped(place: FilePath) -> dict[str, Tensor]:
    """Map all files at once: a mapping stays valid when the file is removed."""
    before = manifest_bytes(place)
    manifest, storages = manifest_at(place), dict[str, Any]()
    for file in manifest.files:
        name = str(place / file.name)
        with reading.open_payload(place / file.name, file):
            # Not shared: writing to a tensor must never reach the file.
            storages[file.name] = torch.UntypedStorage.from_file(name, False, file.length)
    if manifest_bytes(place) != before:
        raise CheckpointCorruptError(f"{place} was replaced while it was mapped")
    found: dict[str, Tensor] = {}
    for leaf in manifest.leaves:
        name, count = leaf.path, 1
        while name in found:  # ``a.b`` can also be the key ``b`` under ``a``
            count += 1
            name = f"{leaf.path}~{count}"
        found[name] = _view(leaf, storages)
    return found


def _view(leaf: Leaf, storages: Mapping[str, Any]) -> Tensor:
    """Return a leaf in mapped files; row-major, as it is there."""
    dtype = BY_NAME[leaf.dtype]
    flat = torch.empty(0, dtype=dtype, device="cpu")
    if leaf.length == 0:
        return flat.reshape(leaf.shape)
    offset, stride = leaf.offset // dtype.itemsize, contiguous_stride(leaf.shape)
    return flat.set_(storages[leaf.file], offset, leaf.shape, stride)
