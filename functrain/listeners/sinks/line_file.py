"""A file that grows by whole lines, and is cut back to one of them."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from functrain.checkpoint.storage.files import sync_directory, write_all


@attrs.define(eq=False)
class LineFile:
    """An open file of lines.

    Args:
        path: the file; directories above it are made.
    """

    path: Path = attrs.field(converter=Path)
    _descriptor: int | None = attrs.field(init=False, default=None)
    _size: int = attrs.field(init=False, default=0)

    def read(self) -> bytes:
        """What is in the file: whole lines. One that a crash cut short is left out."""
        data = self.path.read_bytes() if self.path.exists() else b""
        return data[: data.rfind(b"\n") + 1]

    def open(self, size: int) -> None:
        """Open the file to append after its first ``size`` bytes; the rest is cut off."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self._descriptor, size)
        self._size = size
        if new:
            sync_directory(self.path.parent)

    def append(self, data: bytes) -> None:
        """Write lines, all or none of them."""
        assert self._descriptor is not None, "open comes first"
        os.ftruncate(self._descriptor, self._size)  # of what an earlier attempt left behind
        write_all(self._descriptor, data)
        self._size += len(data)

    def replace(self, data: bytes) -> None:
        """Put other lines in the place of all there are: wholly, or not at all."""
        beside = self.path.with_name(f"{self.path.name}.new")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)
        self.open(len(data))  # before anything can fail: what was open is not there any more
        sync_directory(self.path.parent)

    def sync(self) -> None:
        """Make durable what was written."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
