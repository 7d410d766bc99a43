"""Make chosen system calls fail, in any thread."""

from __future__ import annotations

import itertools
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from functrain.errors import CheckpointWriteError, FunctrainWarning, RunDirectoryError

CALLS = ("open", "mkdir", "write", "pwrite", "posix_fallocate", "ftruncate", "fsync", "rename")
CALLS += ("link", "unlink", "rmdir", "close", "listdir", "fstat", "preadv")


class Failing:
    """The system calls of ``os``, of which the n-th fails; from any number of threads.

    Attributes:
        failed: the name of the one that did.
        lost: whether the bytes of a file are not what they are to be, or may be lost.
        synced_again: files that were synced after a sync of theirs had failed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int, code: int) -> None:
        self.count, self.nth, self.code = 0, nth, code
        self.failed, self.lost = "", False
        self.broken: set[tuple[int, int]] = set()
        self.synced_again: set[tuple[int, int]] = set()
        self.lock, self.fstat = threading.Lock(), os.fstat
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name: str, call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.lock:
                self.count += 1
                fails = self.count == self.nth
            if name in ("fsync", "pwrite", "write"):
                self.note(name, args[0], fails)
            if fails:
                self.failed = name
                if name == "close":
                    call(*args, **kwargs)
                raise OSError(self.code, os.strerror(self.code))
            return call(*args, **kwargs)

        return counted

    def note(self, name: str, descriptor: int, fails: bool) -> None:
        status = self.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        inode = (status.st_dev, status.st_ino)
        if name == "fsync" and inode in self.broken:
            self.synced_again.add(inode)
        if fails:
            self.lost = True
            self.broken.add(inode)


def each_call_failing(
    prepare: Callable[[], object], act: Callable[[], object], codes: Sequence[int]
) -> Iterator[tuple[Failing, OSError | None]]:
    """Act again and again while one system call after the other fails, and at last none.

    Yields what failed, and the error of functrain that it raised, if any.
    """
    for nth in itertools.count(1):
        prepare()
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", FunctrainWarning)
            failing, told = Failing(patch, nth, codes[nth % len(codes)]), None
            try:
                act()
            except (CheckpointWriteError, RunDirectoryError) as error:
                told = error
        assert failing.synced_again == set()
        yield failing, told
        if not failing.failed:
            return


def failing_always(
    patch: pytest.MonkeyPatch, module: Any, name: str, code: int, when: Any = lambda *_: True
) -> list[int]:
    """Make a call fail whenever a condition holds; the list says how often it did."""
    call, times = getattr(module, name), [0]

    def refused(*args: Any, **options: Any) -> Any:
        if when(*args):
            times[0] += 1
            raise OSError(code, os.strerror(code))
        return call(*args, **options)

    patch.setattr(module, name, refused)
    return times
