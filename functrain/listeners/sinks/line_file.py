"""A file to append whole lines to, and to truncate at a line."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import attrs

from functrain.checkpoint.storage.files import sync_directory, write_all
from functrain.errors.paths import absolute
from functrain.training.log_owner import Writer


@attrs.define(eq=False)
class LineFile:
    """An open file of lines.

    Args:
        path: the file; its parent directories are created.
    """

    path: Path = attrs.field(converter=absolute)
    _descriptor: int | None = attrs.field(init=False, default=None)
    _size: int = attrs.field(init=False, default=0)

    def read(self) -> bytes:
        """Return the whole lines of the file, without a last one that a crash cut short."""
        data = self.path.read_bytes() if self.path.exists() else b""
        return data[: data.rfind(b"\n") + 1]

    def open(self, size: int) -> None:
        """Truncate the file to its first ``size`` bytes, and open it to append."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self._descriptor, size)
        self._size = size
        if new:
            sync_directory(self.path.parent)

    def open_after(self, wanted: Callable[[bytes], bool], writer: Writer) -> None:
        """Truncate the file after its first lines that are wanted, then append.

        Raises:
            LogError: this would remove lines of another run.
        """
        lines = self.read().splitlines(keepends=True)
        size = sum(map(len, itertools.takewhile(wanted, lines)))
        writer.take(self.path, size)
        self.open(size)

    def append(self, data: bytes) -> None:
        """Write all of the lines or none."""
        assert self._descriptor is not None, "open comes first"
        os.ftruncate(self._descriptor, self._size)  # remove what a failed attempt left behind
        write_all(self._descriptor, data)
        self._size += len(data)

    def replace(self, data: bytes) -> None:
        """Replace the content of the file atomically."""
        draft = self.path.with_name(f"{self.path.name}.new")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.path)
        self.open(len(data))  # at once: the descriptor refers to the replaced file
        sync_directory(self.path.parent)

    def sync(self) -> None:
        """Flush the file to the disk."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
