"""Record every operation on the files of a directory, in order, with inode identities.

The recorder stands in for functions of ``os``, from any number of threads. Operations outside of
its directory are not recorded.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crashes.operations import Change, Data, Log, Mark, Operation, Size, Sync

CREATING = os.O_CREAT
NOBODY = -1


class Recorder:
    """Records what happens below a directory while it is installed.

    Args:
        root: the directory.
        watched: files directly in it that are written in ways the recorder does not see, by
            appending only; looked at before each operation that it sees.
    """

    def __init__(self, root: Path, watched: tuple[str, ...] = ()) -> None:
        self.root, self.watched, self.log = root, watched, Log()
        self._lock = threading.RLock()
        self._known: dict[tuple[int, int], int] = {}
        self._lengths: dict[int, int] = {}
        self._next = 0
        self._scan(root)

    def mark(self, text: str, value: int) -> None:
        """Note what the writer says."""
        with self._lock:
            self.log.operations.append(Mark(text, value))

    @contextlib.contextmanager
    def installed(self) -> Iterator[Recorder]:
        """Record while the block lasts."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("write", "pwrite", "posix_fallocate", "ftruncate", "truncate", "fsync"):
                patch.setattr(os, name, self._recorded(getattr(self, "_" + name), name))
            for name in ("open", "mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link"):
                patch.setattr(os, name, self._recorded(getattr(self, "_" + name), name))
            yield self

    def _recorded(self, record: Callable[..., Any], name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self._look()
                return record(call, *args, **kwargs)

        return recorded

    # -- identities --------------------------------------------------------------------------

    def _scan(self, place: Path) -> int:
        status = os.lstat(place)
        inode = self._new(status)
        if stat.S_ISDIR(status.st_mode):
            self.log.directories[inode] = {}
            for name in sorted(os.listdir(place)):
                self.log.directories[inode][name] = self._scan(place / name)
        else:
            self.log.files[inode] = place.read_bytes()
            self._lengths[inode] = status.st_size
        return inode

    def _new(self, status: os.stat_result) -> int:
        inode, self._next = self._next, self._next + 1
        self._known[status.st_dev, status.st_ino] = inode
        return inode

    def _of(self, descriptor: int) -> int:
        status = os.fstat(descriptor)
        return self._known.get((status.st_dev, status.st_ino), NOBODY)

    def _entry(self, path: Any, dir_fd: int | None = None) -> tuple[int, str]:
        """The directory that a path's last name is in, and that name."""
        head, name = os.path.split(os.fspath(path))
        status = os.stat(head or ".", dir_fd=dir_fd)
        return self._known.get((status.st_dev, status.st_ino), NOBODY), name

    def _shown(self, path: Any, dir_fd: int | None = None) -> int | None:
        try:
            status = os.lstat(path, dir_fd=dir_fd)
        except FileNotFoundError:
            return None
        return self._known.get((status.st_dev, status.st_ino), NOBODY)

    def _add(self, operation: Operation) -> None:
        self.log.operations.append(operation)

    # -- operations --------------------------------------------------------------------------

    def _open(self, call: Any, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        dir_fd = kwargs.get("dir_fd")
        before = self._shown(path, dir_fd) if flags & (CREATING | os.O_TRUNC) else 0
        descriptor: int = call(path, flags, *args, **kwargs)
        if before is None:
            directory, name = self._entry(path, dir_fd)
            if directory != NOBODY:
                inode = self._new(os.fstat(descriptor))
                self._add(Size(inode, 0))  # so that it is known for a file
                self._add(Change(((directory, name, inode),)))
        elif flags & os.O_TRUNC and before != NOBODY:
            self._add(Size(before, 0))
        return descriptor

    def _mkdir(self, call: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        call(path, *args, **kwargs)
        directory, name = self._entry(path, kwargs.get("dir_fd"))
        if directory != NOBODY:
            status = os.lstat(path, dir_fd=kwargs.get("dir_fd"))
            self._add(Change(((directory, name, self._new(status)),)))

    def _rename(self, call: Any, old: Any, new: Any, **kwargs: Any) -> None:
        moved = self._shown(old)
        call(old, new, **kwargs)
        from_, name = self._entry(old)
        to, new_name = self._entry(new)
        if moved not in (None, NOBODY):
            assert NOBODY not in (from_, to), "renamed across the border"
            self._add(Change(((from_, name, None), (to, new_name, moved))))

    _replace = _rename

    def _link(self, call: Any, source: Any, place: Any, **options: Any) -> None:
        call(source, place, **options)
        shown, (directory, name) = self._shown(source), self._entry(place)
        assert shown not in (None, NOBODY)
        self.log.operations.append(Change(((directory, name, shown),)))

    def _unlink(self, call: Any, path: Any, **kwargs: Any) -> None:
        directory, name = self._entry(path, kwargs.get("dir_fd"))
        call(path, **kwargs)
        if directory != NOBODY:
            self._add(Change(((directory, name, None),)))

    _remove = _rmdir = _unlink

    def _write(self, call: Any, descriptor: int, data: Any) -> int:
        inode = self._of(descriptor)
        if inode == NOBODY:
            return int(call(descriptor, data))
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        count: int = call(descriptor, data)
        self._wrote(inode, offset, data, count)
        return count

    def _pwrite(self, call: Any, descriptor: int, data: Any, offset: int) -> int:
        count: int = call(descriptor, data, offset)
        self._wrote(self._of(descriptor), offset, data, count)
        return count

    def _wrote(self, inode: int, offset: int, data: Any, count: int) -> None:
        if inode != NOBODY:
            self._add(Data(inode, offset, bytes(memoryview(data).cast("B")[:count])))

    def _posix_fallocate(self, call: Any, descriptor: int, offset: int, length: int) -> None:
        call(descriptor, offset, length)
        if (inode := self._of(descriptor)) != NOBODY:
            self._add(Size(inode, offset + length, grows=True))

    def _ftruncate(self, call: Any, descriptor: int, length: int) -> None:
        call(descriptor, length)
        if (inode := self._of(descriptor)) != NOBODY:
            self._add(Size(inode, length))

    def _truncate(self, call: Any, path: Any, length: int) -> None:
        call(path, length)
        inode = self._of(path) if isinstance(path, int) else self._shown(path)
        if inode not in (None, NOBODY):
            self._add(Size(inode, length))

    def _fsync(self, call: Any, descriptor: Any) -> None:
        call(descriptor)
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if (inode := self._of(number)) != NOBODY:
            self._add(Sync(inode))

    def _look(self) -> None:
        """Record what was appended to the watched files."""
        for name in self.watched:
            place = self.root / name
            try:
                status = place.lstat()
            except FileNotFoundError:
                continue
            inode = self._known.get((status.st_dev, status.st_ino), NOBODY)
            if inode == NOBODY:
                inode = self._new(status)
                self._lengths[inode] = 0
                self._add(Size(inode, 0))
                self._add(Change(((0, name, inode),)))
            known = self._lengths[inode]
            if status.st_size > known:
                self._add(Data(inode, known, place.read_bytes()[known:]))
            elif status.st_size < known:
                self._add(Size(inode, status.st_size))
            self._lengths[inode] = status.st_size
