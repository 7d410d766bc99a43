"""Fixtures that several tests of checkpoints share."""

from __future__ import annotations

from typing import Any

import pytest

from functrain.checkpoint.storage import block_writer
from functrain.checkpoint.storage.worker_thread import WorkerThread


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[WorkerThread]:
    """The threads that write blocks, as they are made."""
    made: list[WorkerThread] = []

    class Noted(WorkerThread):
        def __init__(self, work: Any) -> None:
            super().__init__(work)
            made.append(self)

    monkeypatch.setattr(block_writer, "WorkerThread", Noted)
    return made
