"""The manifest: everything a checkpoint says about itself, sealed by its own digest."""

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
    """What a checkpoint says about itself.

    Attributes:
        format: version the checkpoint was written in.
        versions: of functrain, torch and Python, at the time of writing.
        saved_at: when, in seconds since 1970, UTC; ``None`` if that is not known.
        step: updates made.
        metrics: values by name; what "best" is chosen from.
        info: whatever the caller added: recipe, environment, seconds.
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
        """The manifest as JSON whose last field is the xxh3-128 of all before it."""
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
        CheckpointFormatError: it is of a format or needs a feature that is not known here.
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
    """Step and entry alone, which is quick for any number of leaves; errors as of :func:`parse`."""
    fields = _opened(data)
    metrics, info = decode(fields["metrics"], []), fields.get("info")
    return fields["step"], Entry.of(metrics, fields.get("saved_at"), info)


def _opened(data: bytes) -> Json:
    body, seal, rest = data.rpartition(_SEAL)
    if not seal or rest != xxh3_128_hexdigest(body).encode() + b'"}\n':
        raise ValueError("its bytes are not those its digest was made of")
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
