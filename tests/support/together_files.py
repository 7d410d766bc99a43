"""The files of a checkpoint, for comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson


def payload(directory: Path) -> dict[str, Any]:
    """Return all files of a checkpoint, without what differs between two saves of one state."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in directory.iterdir()}
    manifest = orjson.loads(found["manifest.json"])
    del manifest["saved_at"], manifest["digest"]
    return {**found, "manifest.json": manifest}
