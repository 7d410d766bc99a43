"""Manifests changed as a hostile hand would change them: with the right digest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from xxhash import xxh3_128_hexdigest


def seal(body: bytes) -> bytes:
    """Return a manifest of these bytes, which lack the closing brace."""
    return body + b',"digest":"' + xxh3_128_hexdigest(body).encode() + b'"}\n'


def sealed(fields: dict[str, Any]) -> bytes:
    return seal(orjson.dumps({k: v for k, v in fields.items() if k != "digest"})[:-1])


def read(path: Path) -> Any:
    return orjson.loads((path / "manifest.json").read_bytes())


def reseal(path: Path, change: Callable[[Any], object]) -> None:
    """Change the manifest of a checkpoint."""
    fields = read(path)
    change(fields)
    (path / "manifest.json").write_bytes(sealed(fields))
