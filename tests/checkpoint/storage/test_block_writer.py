"""Files written in blocks hold the written bytes, and every error on the way is raised."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint.storage.block_writer import BLOCK, BlockWriter
from functrain.checkpoint.storage.worker_thread import WorkerThread

LENGTHS = [0, 1, 4095, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 4096, 9 * BLOCK + 77]
DATA = random.Random(0).randbytes(max(LENGTHS))


def write(directory: Path, lengths: list[int], piece: int) -> None:
    """Write one file a length."""
    with BlockWriter() as writer:
        for number, length in enumerate(lengths):
            writer.begin(directory / str(number), length)
            for start in range(0, length, piece):
                part = DATA[start : min(start + piece, length)]
                held = ctypes.create_string_buffer(part, len(part))
                assert writer.write(ctypes.addressof(held), len(part)) == xxh3_128_hexdigest(part)


def assert_whole(directory: Path, lengths: list[int]) -> None:
    for number, length in enumerate(lengths):
        assert (directory / str(number)).read_bytes() == DATA[:length]


@pytest.mark.parametrize("piece", [1000, 70_001, BLOCK, 3 * BLOCK])
def test_every_length_in_pieces_of_every_size(
    tmp_path: Path, workers: list[WorkerThread], piece: int
) -> None:
    write(tmp_path, LENGTHS, piece)
    assert_whole(tmp_path, LENGTHS)
    assert all(each.wait(0.0) for each in workers)


def test_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, chance = os.pwrite, random.Random(1)

    def short(descriptor: int, data: Any, offset: int) -> int:
        # Also by whole sectors, which leaves the writes that follow aligned.
        count = chance.choice([chance.randrange(1, BLOCK), 4096 * chance.randrange(1, 200)])
        return pwrite(descriptor, data[:count], offset)

    monkeypatch.setattr(os, "pwrite", short)
    write(tmp_path, LENGTHS, BLOCK)
    assert_whole(tmp_path, LENGTHS)


@pytest.mark.parametrize("name", ["pwrite", "fsync", "close", "posix_fallocate"])
@pytest.mark.parametrize("lengths", [[100, 100], [5 * BLOCK, 9 * BLOCK, 3]])
def test_after_an_error_nothing_more_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: list[WorkerThread],
    name: str,
    lengths: list[int],
) -> None:
    real: Callable[..., Any] = getattr(os, name)
    calls: list[int] = []

    def failing(descriptor: int, *rest: Any) -> Any:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken")
        return real(descriptor, *rest)

    monkeypatch.setattr(os, name, failing)
    with pytest.raises(OSError, match="broken"):
        write(tmp_path, lengths, BLOCK)
    monkeypatch.undo()
    if name != "close":
        assert len(calls) == 2
    assert all(each.wait(0.0) for each in workers)


def test_hashes_match_the_written_bytes_even_if_the_source_changes(tmp_path: Path) -> None:
    data = bytearray(5 * BLOCK)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for index in range(0, len(data), 4096):
                data[index] = (data[index] + 1) % 256

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with BlockWriter() as writer:
            writer.begin(tmp_path / "f", len(data))
            address = ctypes.addressof(ctypes.c_char.from_buffer(data))
            digest = writer.write(address, len(data))
    finally:
        stop.set()
        changing.join()
    assert xxh3_128_hexdigest((tmp_path / "f").read_bytes()) == digest
