"""What several tests of checkpoints watch."""

from __future__ import annotations

from typing import Any

import pytest

from functrain.checkpoint.storage import blocks
from functrain.checkpoint.storage.beside import Beside


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Beside]:
    """The threads that write blocks, as they are made."""
    made: list[Beside] = []

    class Noted(Beside):
        def __init__(self, work: Any) -> None:
            super().__init__(work)
            made.append(self)

    monkeypatch.setattr(blocks, "Beside", Noted)
    return made
