"""The manifest: structure and metadata of a checkpoint, with a digest of itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import attrs
import orjson
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint.format.decoding import decode
from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.encoding import encode_plain
from functrain.checkpoint.format.records import CHUNK, Entry, File, Leaf
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.tensor_bytes import is_dense
from functrain.errors import CheckpointFormatError

MANIFEST = "manifest.json"
MAGIC = "functrain-checkpoint"
FORMAT = (1, 0)
_SEAL = b',"digest":"'


@attrs.frozen
class Manifest:
    """The structure and metadata of a checkpoint.

    Attributes:
        format: the version of the format.
        versions: versions of functrain, torch and Python that wrote it.
        saved_at: time of saving in seconds since 1970, UTC, or ``None`` if unknown.
        step: updates made.
        metrics: numbers by name, from which the best checkpoint is chosen.
        info: the caller's data: recipe, environment, seconds.
        structure: the tree as JSON, see :mod:`functrain.checkpoint.format.structure`.
        leaves: its tensors.
        files: the payload files.
    """

    format: tuple[int, int]
    versions: dict[str, str]
    saved_at: float | None
    step: int | None
    metrics: dict[str, Any]
    info: Any
    structure: Json
    leaves: tuple[Leaf, ...]
    files: tuple[File, ...]

    def to_bytes(self) -> bytes:
        """Encode as JSON; the last field is the xxh3-128 digest of everything before it."""
        body = orjson.dumps(
            {
                "magic": MAGIC,
                "format": ".".join(map(str, self.format)),
                "features": [],
                "versions": self.versions,
                "saved_at": self.saved_at,
                "step": self.step,
                "metrics": encode_plain(self.metrics, "metrics"),
                "info": encode_plain(self.info, "info"),
                "chunk": CHUNK,
                "structure": self.structure,
                "leaves": [leaf.to_json() for leaf in self.leaves],
                "files": [attrs.asdict(file) for file in self.files],
            }
        )[:-1]
        return body + _SEAL + xxh3_128_hexdigest(body).encode() + b'"}\n'


def parse(data: bytes) -> Manifest:
    """Read a manifest; inverse of :meth:`Manifest.to_bytes`.

    Raises:
        ValueError: it is damaged or malformed.
        CheckpointFormatError: this version does not know its format or a feature it needs.
    """
    fields = _opened(data)
    manifest = Manifest(
        format=_version(fields["format"], fields["features"]),
        versions=fields["versions"],
        saved_at=fields.get("saved_at"),
        step=fields["step"],
        metrics=decode(fields["metrics"], []),
        info=decode(fields["info"], []),
        structure=fields["structure"],
        leaves=tuple(Leaf.of(leaf) for leaf in fields["leaves"]),
        files=tuple(File.of(file) for file in fields["files"]),
    )
    check(manifest.files, manifest.leaves)
    return manifest


def parse_entry(data: bytes) -> tuple[int | None, Entry]:
    """Read only step and entry, quickly for any number of leaves; see :func:`parse` for errors."""
    fields = _opened(data)
    metrics, info = decode(fields["metrics"], []), fields.get("info")
    return fields["step"], Entry.of(metrics, fields.get("saved_at"), info)


def _opened(data: bytes) -> Json:
    body, seal, rest = data.rpartition(_SEAL)
    if not seal or rest != xxh3_128_hexdigest(body).encode() + b'"}\n':
        raise ValueError("its bytes do not match its digest")
    fields = orjson.loads(body + b"}")
    if fields["magic"] != MAGIC:
        raise ValueError(f"its magic is {fields['magic']!r}, not {MAGIC!r}")
    _version(fields["format"], fields["features"])
    if fields["chunk"] != CHUNK:
        raise ValueError(f"its chunks are of {fields['chunk']} bytes, not {CHUNK}")
    return fields


def _version(text: str, features: list[str]) -> tuple[int, int]:
    major, minor = map(int, text.split("."))
    if major > FORMAT[0] or features:
        needs = f"needs {', '.join(features)} and " if features else ""
        raise CheckpointFormatError(
            f"the checkpoint {needs}is of format {text}, but this version of functrain reads "
            f"format {FORMAT[0]}; install a newer functrain"
        )
    return major, minor


_DIMENSIONS = 64  # the limit of torch's kernels
_LARGEST = 1 << 62
_NAME = re.compile(r"[A-Za-z0-9][\w.~-]{0,150}\.safetensors", re.ASCII)


def check(files: Sequence[File], leaves: Sequence[Leaf]) -> None:
    """Check the records for contradictions."""
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
