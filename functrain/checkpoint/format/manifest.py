"""The manifest: structure and metadata of a checkpoint, with a digest of itself."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint.format.encoding import decode, encode_plain
from functrain.checkpoint.format.records import CHUNK, Entry, File, Leaf
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.validation import check
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
