"""Mistakes in loading, and damage by the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import torch
from xxhash import xxh3_128_hexdigest

import functrain as ft
from functrain import errors

TREE = {"w": torch.ones(4), "b": torch.zeros(2)}


@attrs.frozen
class Mine:
    weight: Any


def resealed(path: Path, **fields: Any) -> None:
    """Write a manifest with other fields and the matching digest."""
    manifest = ft.save(path / "c", TREE) / "manifest.json"
    given = orjson.loads(manifest.read_bytes()) | fields
    given.pop("digest")
    body = orjson.dumps(given)[:-1]
    manifest.write_bytes(body + f',"digest":"{xxh3_128_hexdigest(body)}"}}\n'.encode())
    ft.load(path / "c")


def damage(path: Path) -> Path:
    file = next(path.glob("*.safetensors"))
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return path


def stranger(path: Path) -> None:
    ft.load(ft.save(path / "c", {"mine": Mine(torch.ones(1))}))


def one_damaged(path: Path) -> None:
    store = ft.Checkpoints(path)
    store.save(TREE, step=1)
    damage(store.save(TREE, step=2))
    store.restore("latest")


def refused(path: Path, patches: pytest.MonkeyPatch) -> None:
    ft.save(path / "c", TREE)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    patches.setattr(os, "open", refuse)
    ft.load(path / "c")


def elsewhere(path: Path) -> None:
    place = ft.save(path / "c", {"rng": torch.Generator()}) / "manifest.json"
    body = (
        place.read_bytes().replace(b'"device":"cpu"', b'"device":"xpu:7"').rpartition(b',"digest"')
    )
    place.write_bytes(body[0] + f',"digest":"{xxh3_128_hexdigest(body[0])}"}}\n'.encode())
    ft.load(path / "c")


MISTAKES = [
    (errors.CheckpointTypeError, stranger, "types=(...)"),
    (
        errors.CheckpointFormatError,
        lambda path: resealed(path, format="2.0"),
        "install a newer functrain",
    ),
    (
        errors.CheckpointCorruptError,
        lambda path: ft.load(damage(ft.save(path / "c", TREE))),
        "Take another checkpoint of the run",
    ),
    (errors.CheckpointSkippedWarning, one_damaged, "not those saved"),
    (
        errors.PartialLoadWarning,
        lambda path: ft.load(ft.save(path / "c", TREE), like={"w": TREE["w"]}, partial=True),
        "b: only in the checkpoint",
    ),
    (
        errors.CheckpointReadError,
        refused,
        "fix the problem that the system reports and read it again",
    ),
    (errors.UnsupportedError, elsewhere, "rng is a generator of xpu:7"),
]
