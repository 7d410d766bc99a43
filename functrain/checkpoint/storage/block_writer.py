"""Writing files once, from front to back, in aligned blocks, on a thread of its own.

While one thread fills a block, another hands the one before to the disk. Aligned blocks can go
past the page cache (``O_DIRECT``), which saves a copy; where the file system declines that, be it
in the middle of a file, the rest goes through the cache.
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
# So much is still in the processor's cache when it is hashed after it was copied.
PIECE = 1 << 20
_COUNT = 3
# What a disk may ask of offsets and lengths; none in use asks for more than a page.
_ALIGNMENT = 4096
_DIRECT = getattr(os, "O_DIRECT", 0)


@attrs.define(eq=False)
class _Target:
    """A file being written, and how far."""

    descriptor: int
    direct: bool
    offset: int = 0

    def write(self, data: memoryview) -> None:
        """Append all of ``data``, in as many calls as the system wants."""
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
                raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
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
    """Memory to be filled, and where it is."""

    view: memoryview
    address: int


@attrs.frozen(eq=False)
class _Order:
    """What the writing thread is to do: write a part of a block, and end the file or not."""

    target: _Target
    block: _Block
    count: int
    ends: bool


class BlockWriter:
    """Files written one after the other; all are durable when the ``with`` block ends.

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
        self._beside: WorkerThread | None = None
        self._error: BaseException | None = None
        self._targets: list[_Target] = []
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
            if self._beside is not None:
                self._orders.put(None)
                self._beside.wait()
            for target in self._targets:
                if target.descriptor >= 0:
                    close(target.descriptor)
        if kind is None:
            self._check()

    def begin(self, path: Path, length: int) -> None:
        """End the file before, and make a new one.

        Args:
            path: the file, which must not exist.
            length: bytes that will be written; room for them is taken at once.

        Raises:
            OSError: there is no room, or the file cannot be made.
        """
        self._end()
        target = _Target(create(path), direct=False)
        self._targets.append(target)
        preallocate(target.descriptor, length)
        if length > PIECE:
            target.direct = _past_cache(target.descriptor)
            self._start()

    def write(self, address: int, length: int) -> str:
        """Append memory to the present file.

        Args:
            address: first byte; the memory must stay until this returns.
            length: number of bytes.

        Returns:
            xxh3-128, as hex, of what goes to the disk, also if the memory changes meanwhile.

        Raises:
            OSError: these or earlier bytes could not be written.
        """
        start, end = self._filled, self._filled + length
        if length <= PIECE and end < BLOCK:  # nearly all tensors; the general case is below
            ctypes.memmove(self._block.address + start, address, length)
            self._filled = end
            return xxh3_128_hexdigest(self._block.view[start:end])
        return self._write_pieces(address, length)

    def _write_pieces(self, address: int, length: int) -> str:
        digest, done = xxh3_128(), 0
        while done < length:
            start, count = self._filled, min(PIECE, BLOCK - self._filled, length - done)
            # Called like this, memmove lets other threads run.
            ctypes.memmove(self._block.address + start, address + done, count)
            digest.update(self._block.view[start : start + count])
            self._filled, done = start + count, done + count
            if self._filled == BLOCK:
                self._hand_over(ends=False)
        return digest.hexdigest()

    def _end(self) -> None:
        if self._targets and self._targets[-1].descriptor >= 0:
            self._hand_over(ends=True)

    def _hand_over(self, ends: bool) -> None:
        order = _Order(self._targets[-1], self._block, self._filled, ends)
        if self._beside is None:
            self._carry_out(order)
        else:
            self._orders.put(order)
        self._block, self._filled = self._free.get(), 0
        self._check()

    def _start(self) -> None:
        if self._beside is None:
            beside = WorkerThread(self._work)
            if beside.start():
                self._beside = beside

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            self._carry_out(order)

    def _carry_out(self, order: _Order) -> None:
        try:
            if self._error is None:  # after an error nothing more is tried
                order.target.write(order.block.view[: order.count])
                if order.ends:
                    order.target.finish()
        except BaseException as error:  # raised again in the other thread
            self._error = error
        finally:
            self._free.put(order.block)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def _blocks() -> list[_Block]:
    # Private, since shared memory has no huge pages, and small ones are slow to touch first.
    memory = mmap.mmap(-1, BLOCK * _COUNT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # an offer to the system, no more
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole, first = memoryview(memory), ctypes.addressof(ctypes.c_char.from_buffer(memory))
    starts = range(0, len(whole), BLOCK)
    return [_Block(whole[start : start + BLOCK], first + start) for start in starts]


def _past_cache(descriptor: int) -> bool:
    """Ask that writes go straight to the disk; ``False`` where that is declined."""
    if not _DIRECT:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | _DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True
