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
from functrain.checkpoint import weights
from mistakes.mistake import Mistake

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


def all_damaged(path: Path) -> None:
    store = ft.Checkpoints(path)
    damage(store.save(TREE, step=1))
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
    Mistake(
        errors.NoCheckpointError,
        lambda path, _: ft.load(path / "none"),
        ("no checkpoint at", "none"),
        ("there is no checkpoint",),
    ),
    Mistake(
        errors.NoCheckpointError,
        lambda path, _: (torch.save(TREE, path / "w.pt"), ft.load(path / "w.pt")),
        ("w.pt: it is a file",),
        ("functrain.checkpoint.weights reads files of weights",),
    ),
    Mistake(
        errors.NoCheckpointError,
        lambda path, _: ft.Checkpoints(path).restore("best"),
        ("no checkpoint",),
        ("in /",),
    ),
    Mistake(
        errors.CheckpointMismatchError,
        lambda path, _: ft.load(ft.save(path / "c", TREE), like={"w": torch.ones(3)}),
        ("2 places", "w", "[4]", "[3]", "b"),
        ("rename=", "partial="),
    ),
    Mistake(
        errors.CheckpointTypeError,
        lambda path, _: stranger(path),
        ("Mine",),
        ("types=(...)", "like="),
    ),
    Mistake(
        errors.CheckpointFormatError,
        lambda path, _: resealed(path, format="2.0"),
        ("of format 2.0", "reads format 1"),
        ("install a newer functrain",),
    ),
    Mistake(
        errors.CheckpointCorruptError,
        lambda path, _: ft.load(damage(ft.save(path / "c", TREE))),
        ("safetensors: the bytes of", "not those saved"),
        ("Take another checkpoint of the run",),
    ),
    Mistake(
        errors.CheckpointCorruptError,
        lambda path, _: all_damaged(path),
        ("every checkpoint in", "is damaged", "step-00000001"),
        ("or a copy of this one",),
    ),
    Mistake(
        errors.CheckpointSkippedWarning,
        lambda path, _: one_damaged(path),
        ("skipped", "step-00000002", "the bytes of"),
        ("not those saved",),
    ),
    Mistake(
        errors.PartialLoadWarning,
        lambda path, _: ft.load(ft.save(path / "c", TREE), like={"w": TREE["w"]}, partial=True),
        ("loaded in part", "b: only in the checkpoint"),
        ("not loaded",),
    ),
    Mistake(
        errors.CheckpointReadError,
        refused,
        ("c could not be read", "Permission denied"),
        ("fix the problem that the system reports and read it again",),
    ),
    Mistake(
        errors.CheckpointDeviceError,
        lambda path, _: elsewhere(path),
        ("rng is a generator of xpu:7",),
        ("only=...",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda path, _: weights(ft.save(path / "c", TREE), "averaged"),
        ("what='averaged'",),
        ("'params', 'ema' or 'all'",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda path, _: ft.load(ft.save(path / "c", TREE), partial=True),
        ("partial",),
        ("give like=",),
    ),
]
