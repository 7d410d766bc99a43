"""What a manifest says of one tensor, of one payload file, and, in short, of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from functrain.checkpoint.format.scalars import Json

CHUNK = 64 << 20


class Declared(Protocol):
    """What a manifest says of a tensor."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


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

    def to_json(self) -> Json:
        """As JSON, without what is the default."""
        json = {
            "path": self.path,
            "dtype": self.dtype,
            "shape": self.shape,
            "file": self.file,
            "offset": self.offset,
            "length": self.length,
            "hashes": self.hashes,
        }
        if self.stride is not None:
            json["stride"] = self.stride
        if self.device != "cpu":
            json["device"] = self.device
        if self.alias_of is not None:
            json["alias_of"] = self.alias_of
        return json

    @classmethod
    def of(cls, json: Json) -> Leaf:
        """Inverse of :meth:`to_json`; fields of a newer minor version are passed over."""
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
    """One payload file: its length, and xxh3-128 of its header. The leaves cover the rest."""

    name: str
    length: int
    header_length: int
    header_hash: str

    @classmethod
    def of(cls, json: Json) -> File:
        """From JSON; fields of a newer minor version are passed over."""
        return cls(json["name"], json["length"], json["header_length"], json["header_hash"])


@attrs.frozen
class Entry:
    """What of a checkpoint decides whether it is kept.

    Attributes:
        metrics: by name.
        saved_at: seconds since 1970, or ``None`` if that is not known.
        monitored: ``monitor`` and ``mode`` by which its run judged, where it says so.
    """

    metrics: Mapping[str, Any]
    saved_at: float | None = None
    monitored: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, metrics: Mapping[str, Any], saved_at: float | None, info: Any) -> Entry:
        """Make an entry of the parts of a manifest."""
        said = info.get("monitored") if isinstance(info, Mapping) else None
        return cls(metrics, saved_at, said if isinstance(said, Mapping) else {})
