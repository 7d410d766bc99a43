"""The manifest: everything a checkpoint says about itself, sealed by its own digest."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint.dtypes import BY_NAME
from functrain.checkpoint.encoding import decode, encode_plain
from functrain.checkpoint.memory import is_dense
from functrain.checkpoint.scalars import Json
from functrain.errors import CheckpointFormatError

MANIFEST = "manifest.json"
MAGIC = "functrain-checkpoint"
FORMAT = (1, 0)
CHUNK = 64 << 20
_SEAL = b',"digest":"'


@attrs.frozen
class Leaf:
    """One tensor of a checkpoint.

    Attributes:
        path: dotted path in the tree.
        dtype: torch's name of the dtype, without ``torch.``.
        shape: sizes.
        file: the payload file it is in.
        offset: first byte within the file.
        length: number of bytes.
        hashes: xxh3-128 of each 64 MiB of it, as hex.
        stride: memory layout, where it is not row-major.
        device: where it was when saved.
        alias_of: index of the leaf that is the same memory, for all but the first such.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    length: int
    hashes: tuple[str, ...]
    stride: tuple[int, ...] | None = None
    device: str = "cpu"
    alias_of: int | None = None


@attrs.frozen
class File:
    """One payload file: its length, and xxh3-128 of its header. The leaves cover the rest."""

    name: str
    length: int
    header_length: int
    header_hash: str


@attrs.frozen
class Manifest:
    """What a checkpoint says about itself.

    Attributes:
        format: version the checkpoint was written in.
        versions: of functrain, torch and Python, at the time of writing.
        step: updates made.
        metrics: values by name; what "best" is chosen from.
        info: whatever the caller added: recipe, environment, seconds.
        structure: the tree as JSON, see :mod:`functrain.checkpoint.structure`.
        leaves: its tensors.
        files: the payload files.
    """

    format: tuple[int, int]
    versions: dict[str, str]
    step: int | None
    metrics: dict[str, Any]
    info: Any
    structure: Json
    leaves: tuple[Leaf, ...]
    files: tuple[File, ...]

    def to_bytes(self) -> bytes:
        """The manifest as JSON whose last field is the xxh3-128 of all before it."""
        body = orjson.dumps(
            {
                "magic": MAGIC,
                "format": ".".join(map(str, self.format)),
                "features": [],
                "versions": self.versions,
                "step": self.step,
                "metrics": encode_plain(self.metrics, "metrics"),
                "info": encode_plain(self.info, "info"),
                "chunk": CHUNK,
                "structure": self.structure,
                "leaves": [_without_defaults(leaf) for leaf in self.leaves],
                "files": [attrs.asdict(file) for file in self.files],
            }
        )[:-1]
        return body + _SEAL + xxh3_128_hexdigest(body).encode() + b'"}\n'


def parse(data: bytes) -> Manifest:
    """Read a manifest; inverse of :meth:`Manifest.to_bytes`.

    Raises:
        ValueError: it is damaged or malformed.
        CheckpointFormatError: it is of a format or needs a feature that is not known here.
    """
    body, seal, rest = data.rpartition(_SEAL)
    if not seal or rest != xxh3_128_hexdigest(body).encode() + b'"}\n':
        raise ValueError("its bytes are not those its digest was made of")
    fields = orjson.loads(body + b"}")
    if fields["magic"] != MAGIC:
        raise ValueError(f"its magic is {fields['magic']!r}, not {MAGIC!r}")
    version = _version(fields["format"], fields["features"])
    if fields["chunk"] != CHUNK:
        raise ValueError(f"its chunks are of {fields['chunk']} bytes, not {CHUNK}")
    manifest = Manifest(
        format=version,
        versions=fields["versions"],
        step=fields["step"],
        metrics=decode(fields["metrics"], []),
        info=decode(fields["info"], []),
        structure=fields["structure"],
        leaves=tuple(_parsed(Leaf, leaf) for leaf in fields["leaves"]),
        files=tuple(_parsed(File, file) for file in fields["files"]),
    )
    _check(manifest)
    return manifest


def _version(text: str, features: list[str]) -> tuple[int, int]:
    major, minor = map(int, text.split("."))
    if major > FORMAT[0] or features:
        needs = f"needs {', '.join(features)} and " if features else ""
        raise CheckpointFormatError(
            f"the checkpoint {needs}is of format {text}, but this version of functrain reads "
            f"format {FORMAT[0]}; install a newer functrain"
        )
    return major, minor


def _without_defaults(leaf: Leaf) -> dict[str, Any]:
    values = ((field, getattr(leaf, field.name)) for field in attrs.fields(Leaf))
    return {field.name: value for field, value in values if value != field.default}


def _parsed(cls: type[Any], fields: dict[str, Any]) -> Any:
    """An instance from JSON; fields of a newer minor version are passed over."""
    known = {field.name for field in attrs.fields(cls)}
    return cls(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
            if name in known
        }
    )


def _check(manifest: Manifest) -> None:
    files = {file.name: file for file in manifest.files}
    for file in manifest.files:
        _need(_is_name(file.name), f"{file.name!r} is no name of a payload file")
        _need(0 <= file.header_length <= file.length, f"the lengths of {file.name} are impossible")
    for index, leaf in enumerate(manifest.leaves):
        _check_leaf(leaf, files.get(leaf.file))
        if leaf.alias_of is not None:
            _need(0 <= leaf.alias_of < index, f"{leaf.path} is an alias of what comes later")
            twin = attrs.evolve(leaf, path=manifest.leaves[leaf.alias_of].path, alias_of=None)
            _need(twin == manifest.leaves[leaf.alias_of], f"{leaf.path} is no alias of {twin.path}")


def _check_leaf(leaf: Leaf, file: File | None) -> None:
    _need(file is not None and leaf.dtype in BY_NAME, f"{leaf.path} is in no known file or dtype")
    _need(all(type(size) is int and size >= 0 for size in leaf.shape), f"shape of {leaf.path}")
    size = BY_NAME[leaf.dtype].itemsize
    for dimension in leaf.shape:
        size *= dimension
    _need(leaf.length == size, f"{leaf.path} has {leaf.length} bytes, but its shape needs {size}")
    if file is not None:
        fits = file.header_length <= leaf.offset <= file.length - leaf.length
        _need(fits, f"{leaf.path} lies outside of {leaf.file}")
    _need(len(leaf.hashes) == -(-leaf.length // CHUNK), f"{leaf.path} has the wrong hashes")
    if leaf.stride is not None:
        fits = len(leaf.stride) == len(leaf.shape) and is_dense(leaf.shape, leaf.stride)
        _need(fits, f"{leaf.path} has impossible strides")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and name.count("/") == 0


def _need(fact: bool, problem: str) -> None:
    if not fact:
        raise ValueError(problem)
