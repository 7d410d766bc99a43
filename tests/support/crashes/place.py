"""The directory for simulated crashes, and a report of their number."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LONG = os.environ.get("FUNCTRAIN_EXAMPLES") == "long"
_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new directory, in memory where there is one: syncing costs nothing there."""
    directory = Path(tempfile.mkdtemp(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Print a line whatever becomes of the output of tests."""
    with capsys.disabled():
        print(f"\n{text}", end=" ")
