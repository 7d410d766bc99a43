"""Operations on files, by the inodes that they concern; inode 0 is the directory looked at."""

from __future__ import annotations

import attrs


@attrs.frozen
class Change:
    """Names that change together: the entry (directory, name) then shows an inode, or nothing."""

    entries: tuple[tuple[int, str, int | None], ...]


@attrs.frozen
class Data:
    """Bytes written to a file."""

    inode: int
    offset: int
    data: bytes


@attrs.frozen
class Size:
    """A file's length set, or (``grows``) made at least so much."""

    inode: int
    length: int
    grows: bool = False


@attrs.frozen
class Sync:
    """A sync: earlier operations on a file or directory are on the disk."""

    inode: int


@attrs.frozen
class Mark:
    """A message of the writer: ``begun`` or ``returned``, with the value saved."""

    text: str
    value: int


Operation = Change | Data | Size | Sync | Mark


@attrs.define
class Log:
    """A directory as it was, and what was done to it since. Inode 0 is the directory itself."""

    directories: dict[int, dict[str, int]] = attrs.field(factory=lambda: {0: {}})
    files: dict[int, bytes] = attrs.field(factory=dict)
    operations: list[Operation] = attrs.field(factory=list)
