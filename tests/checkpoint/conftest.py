"""Fixtures that several tests of checkpoints share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crashes.place import scratch

# These write and sync thousands of files.
IN_MEMORY = [
    Path(__file__).with_name(f"test_{name}.py")
    for name in (
        *("crash_readers", "crash_recorder", "crash_writes", "faults", "file_systems"),
        *("hard_links", "syscalls"),
    )
]


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    if request.path not in IN_MEMORY:
        yield tmp_path
        return
    with scratch() as directory:
        yield directory
