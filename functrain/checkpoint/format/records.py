"""The records of a manifest: one tensor, one payload file, and a summary of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from functrain.checkpoint.format.scalars import Json

CHUNK = 64 << 20
_DEFAULTS = (("stride", None), ("device", "cpu"), ("alias_of", None))


@attrs.frozen
class Leaf:
    """One tensor of a checkpoint.

    Attributes:
        path: dotted path in the tree.
        dtype: torch's name of the dtype, without ``torch.``.
        shape: sizes.
        file: name of the payload file.
        offset: offset of its first byte in the file.
        length: number of bytes.
        hashes: xxh3-128 of each 64 MiB, as hex.
        stride: strides, if the tensor is not row-major.
        device: the device it was saved from.
        alias_of: index of the first leaf with the same memory, or ``None`` for that leaf.
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

    def to_json(self) -> Json:
        """Encode as JSON, omitting defaults."""
        fields = attrs.asdict(self, recurse=False)
        return dict(field for field in fields.items() if field not in _DEFAULTS)

    @classmethod
    def of(cls, json: Json) -> Leaf:
        """Decode from JSON, ignoring fields of a newer minor version."""
        stride = json.get("stride")
        return cls(
            json["path"],
            json["dtype"],
            tuple(json["shape"]),
            json["file"],
            json["offset"],
            json["length"],
            tuple(json["hashes"]),
            None if stride is None else tuple(stride),
            json.get("device", "cpu"),
            json.get("alias_of"),
        )


@attrs.frozen
class File:
    """One payload file: its length, and the xxh3-128 of its header."""

    name: str
    length: int
    header_length: int
    header_hash: str

    @classmethod
    def of(cls, json: Json) -> File:
        """Decode from JSON, ignoring fields of a newer minor version."""
        return cls(json["name"], json["length"], json["header_length"], json["header_hash"])


@attrs.frozen
class Entry:
    """The part of a manifest by which retention rules decide.

    Attributes:
        saved_at: time of saving in seconds since 1970, or ``None`` if unknown.
        monitored: ``monitor`` and ``mode`` of its run, if recorded.
    """

    metrics: Mapping[str, Any]
    saved_at: float | None = None
    monitored: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, metrics: Mapping[str, Any], saved_at: float | None, info: Any) -> Entry:
        said = info.get("monitored") if isinstance(info, Mapping) else None
        return cls(metrics, saved_at, said if isinstance(said, Mapping) else {})
