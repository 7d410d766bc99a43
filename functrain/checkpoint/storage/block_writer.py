"""Write files sequentially in aligned blocks, on a separate thread.

While one thread fills a block, another writes the previous block. Aligned blocks can bypass the
page cache (``O_DIRECT``), which saves a copy. If the file system refuses that, even in the middle
of a file, the rest goes through the cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from pathlib import Path
from queue import SimpleQueue

import attrs
from xxhash import xxh3_128, xxh3_128_hexdigest

from functrain.checkpoint.storage.files import close, create, preallocate, sync
from functrain.checkpoint.storage.worker_thread import WorkerThread

BLOCK = 4 << 20
# Small enough to be still in the CPU cache when it is hashed after copying.
PIECE = 1 << 20
_COUNT = 3
# O_DIRECT requires aligned offsets and lengths; no disk in use requires more than a page.
_ALIGNMENT = 4096
_DIRECT = getattr(os, "O_DIRECT", 0)


@attrs.define(eq=False)
class Target:
    """An open file and the offset of the next byte to write."""

    descriptor: int
    direct: bool
    offset: int = 0

    def write(self, data: memoryview) -> None:
        """Write all of ``data``; one system call may write only part of it."""
        if self.direct and len(data) % _ALIGNMENT:
            self._go_through_cache()
        while data:
            try:
                count = os.pwrite(self.descriptor, data, self.offset)
            except OSError as error:
                if not self.direct or error.errno != errno.EINVAL:
                    raise
                self._go_through_cache()
                continue
            if count == 0:
                raise OSError(errno.EIO, "the system wrote nothing without reporting an error")
            self.offset += count
            data = data[count:]
            if self.direct and count % _ALIGNMENT:
                self._go_through_cache()

    def finish(self) -> None:
        """Make the file durable and close it."""
        sync(self.descriptor)
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)

    def _go_through_cache(self) -> None:
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
        self.direct = False


@attrs.frozen(eq=False)
class _Block:
    """A buffer and its address."""

    view: memoryview
    address: int


@attrs.frozen(eq=False)
class _Order:
    """A request to the writing thread: write the start of a block, perhaps end the file."""

    target: Target
    block: _Block
    count: int
    ends: bool


class BlockWriter:
    """Writes files one after the other; all are durable when the ``with`` block ends.

    Example:
        >>> import tempfile
        >>> place, text = Path(tempfile.mkdtemp()), ctypes.create_string_buffer(b"abc", 3)
        >>> with BlockWriter() as writer:
        ...     for name in ("a", "b"):
        ...         writer.begin(place / name, length=3)
        ...         _ = writer.write(ctypes.addressof(text), 3)
        >>> (place / "b").read_bytes()
        b'abc'
    """

    def __init__(self) -> None:
        self._free: SimpleQueue[_Block] = SimpleQueue()
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread: WorkerThread | None = None
        self._error: BaseException | None = None
        self._targets: list[Target] = []
        for block in _blocks():
            self._free.put(block)
        self._block, self._filled = self._free.get(), 0

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            if self._thread is not None:
                self._orders.put(None)
                self._thread.wait()
            for target in self._targets:
                if target.descriptor >= 0:
                    close(target.descriptor)
        if kind is None:
            self._check()

    def begin(self, path: Path, length: int) -> None:
        """Finish the previous file and create a new one."""
        self._end()
        target = Target(create(path), direct=False)
        self._targets.append(target)
        preallocate(target.descriptor, length)
        if length > PIECE:
            target.direct = bypass_cache(target.descriptor)
            self._start()

    def write(self, address: int, length: int) -> str:
        """Append memory to the current file.

        Returns the hash of the bytes written, even if the memory changes meanwhile.
        """
        start, end = self._filled, self._filled + length
        if length <= PIECE and end < BLOCK:  # the fast path, for nearly all tensors
            ctypes.memmove(self._block.address + start, address, length)
            self._filled = end
            return xxh3_128_hexdigest(self._block.view[start:end])
        return self._write_pieces(address, length)

    def _write_pieces(self, address: int, length: int) -> str:
        digest, done = xxh3_128(), 0
        while done < length:
            start, count = self._filled, min(PIECE, BLOCK - self._filled, length - done)
            # Hash the copy, not the source: only the copy is what reaches the disk. memmove through
            # ctypes releases the GIL.
            ctypes.memmove(self._block.address + start, address + done, count)
            digest.update(self._block.view[start : start + count])
            self._filled, done = start + count, done + count
            if self._filled == BLOCK:
                self._submit(ends=False)
        return digest.hexdigest()

    def _end(self) -> None:
        if self._targets and self._targets[-1].descriptor >= 0:
            self._submit(ends=True)

    def _submit(self, ends: bool) -> None:
        order = _Order(self._targets[-1], self._block, self._filled, ends)
        if self._thread is None:
            self._execute(order)
        else:
            self._orders.put(order)
        self._block, self._filled = self._free.get(), 0
        self._check()

    def _start(self) -> None:
        if self._thread is None:
            thread = WorkerThread(self._work)
            if thread.start():
                self._thread = thread

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            self._execute(order)

    def _execute(self, order: _Order) -> None:
        try:
            if self._error is None:  # after an error, write nothing more
                order.target.write(order.block.view[: order.count])
                if order.ends:
                    order.target.finish()
        except BaseException as error:  # raised in the other thread by _check
            self._error = error
        finally:
            self._free.put(order.block)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def _blocks() -> list[_Block]:
    whole = aligned_memory(BLOCK * _COUNT)
    first = ctypes.addressof(ctypes.c_char.from_buffer(whole))
    starts = range(0, len(whole), BLOCK)
    return [_Block(whole[start : start + BLOCK], first + start) for start in starts]


def aligned_memory(size: int) -> memoryview:
    """Allocate memory at an address that direct writes accept."""
    # Private memory: shared memory has no huge pages, and faulting in small pages is slow.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # only a hint to the system
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def bypass_cache(descriptor: int) -> bool:
    """Set ``O_DIRECT``; return ``False`` if the file system refuses."""
    if not _DIRECT:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | _DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True
