"""The state of a run, put together again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from functrain.cli.targets import store_of
from functrain.errors import NoCheckpointError
from functrain.resumption import TYPES
from functrain.run_state import RunState


def newest(directory: Path) -> Any:
    """The ``RunState`` of the newest checkpoint that verifies.

    Raises:
        NoCheckpointError: there is none.
    """
    saved, _ = store_of(directory).restore("latest", types=TYPES)
    if not isinstance(saved, RunState):
        raise NoCheckpointError(2, f"the checkpoints in {directory} are not those of a run")
    return saved
