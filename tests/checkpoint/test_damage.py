"""No damage to the files ever leads to loading something that was not saved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from manifests import reseal, seal

from functrain import tree
from functrain.checkpoint import load, read_manifest, save, verify
from functrain.checkpoint.format.manifest import parse
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointReadError,
    NoCheckpointError,
)

SAVED = {"params": {"w": torch.tensor([1.5, -2.0])}, "note": float("nan"), "c": torch.ones(3)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "c", SAVED, step=3)


def payload_files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.suffix == ".safetensors")


def noticed(path: Path) -> bool:
    """Whether loading fails by name; what it gives otherwise must be what was saved."""
    try:
        loaded = load(path)
    except CheckpointCorruptError:
        return True
    assert tree.equal(loaded, SAVED)
    return False


@pytest.mark.sweep
@pytest.mark.parametrize("stride", [17, 1])
def test_every_flipped_bit_is_noticed(saved: Path, stride: int) -> None:
    count, size = 0, sum(file.stat().st_size for file in saved.iterdir())
    for file in saved.iterdir():
        data = bytearray(file.read_bytes())
        for place in range(0, 8 * len(data), stride):
            index, bit = divmod(place, 8)
            data[index] ^= 1 << bit
            file.write_bytes(data)
            assert noticed(saved), (file, index, bit)
            data[index] ^= 1 << bit
            count += 1
        file.write_bytes(data)
    assert not noticed(saved)
    assert count >= 8 * size // stride > 9000 // stride


def test_every_truncation_and_extension_is_noticed(saved: Path) -> None:
    for file in saved.iterdir():
        data = file.read_bytes()
        for changed in (*(data[:length] for length in range(len(data))), data + b"\0", data + data):
            file.write_bytes(changed)
            assert noticed(saved), (file, len(changed))
        file.write_bytes(data)
    assert not noticed(saved)


@pytest.mark.parametrize("number", [0, 1])
def test_zeroed_tail(saved: Path, number: int) -> None:
    file = payload_files(saved)[number]
    file.write_bytes(file.read_bytes()[:-4] + bytes(4))
    with pytest.raises(
        CheckpointCorruptError, match=rf"{file.name}: the bytes of (params\.w|c) are"
    ):
        load(saved)
    with pytest.raises(CheckpointCorruptError, match=file.name):
        verify(saved)


def test_missing_files(saved: Path) -> None:
    for name in ("params.safetensors", "manifest.json"):
        (saved / name).rename(saved / "elsewhere")
        with pytest.raises(CheckpointCorruptError, match=name):
            load(saved)
        (saved / "elsewhere").rename(saved / name)
    shutil.rmtree(saved)
    with pytest.raises(NoCheckpointError, match="no checkpoint at"):
        load(saved)
    saved.write_text("a file")
    with pytest.raises(NoCheckpointError, match="no checkpoint at"):
        load(saved)


def test_swapped_payloads_and_stale_manifest(saved: Path) -> None:
    other = save(saved.with_name("d"), {**SAVED, "params": {"w": torch.tensor([1.5, 2.0])}})
    shutil.copy(other / "params.safetensors", saved / "params.safetensors")
    assert noticed(saved)
    shutil.copy(saved / "manifest.json", other / "manifest.json")
    shutil.copy(other / "rest.safetensors", saved / "params.safetensors")
    assert noticed(saved)


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "path in name": lambda m: m["files"][0].update(name="../c/params.safetensors"),
    "no name": lambda m: m["files"][0].update(name=3),
    "huge shape": lambda m: m["leaves"][0].update(shape=[1 << 40, 1 << 20]),
    "huge length": lambda m: m["leaves"][0].update(length=1 << 50, shape=[1 << 48]),
    "negative size": lambda m: m["leaves"][0].update(shape=[-1, -2]),
    "negative offset": lambda m: m["leaves"][0].update(offset=-8),
    "offset in header": lambda m: m["leaves"][0].update(offset=0),
    "beyond the end": lambda m: m["leaves"][0].update(offset=1 << 40),
    "other leaf's bytes": lambda m: m["leaves"][0].update(file="rest.safetensors"),
    "unknown dtype": lambda m: m["leaves"][0].update(dtype="Tensor"),
    "dtype as list": lambda m: m["leaves"][0].update(dtype=[]),
    "no hash": lambda m: m["leaves"][0].update(hashes=[]),
    "overlapping strides": lambda m: m["leaves"][0].update(stride=[0]),
    "huge strides": lambda m: m["leaves"][0].update(stride=[1 << 60]),
    "alias of itself": lambda m: m["leaves"][0].update(alias_of=0),
    "alias of another": lambda m: m["leaves"][1].update(alias_of=0),
    "no leaves": lambda m: m.update(leaves=[]),
    "leaves as int": lambda m: m.update(leaves=7),
    "missing field": lambda m: m.pop("structure"),
    "structure": lambda m: m.update(structure={"$tensor": 99}),
    "structure of a kind unknown": lambda m: m.update(structure={"$what": 99}),
    "fields": lambda m: m.update(structure={"$attrs": "os.system", "fields": 3}),
    "magic": lambda m: m.update(magic="other"),
    "chunk": lambda m: m.update(chunk=1),
    "format": lambda m: m.update(format="one"),
    "header length": lambda m: m["files"][0].update(header_length=1 << 50),
    "file length": lambda m: m["files"][0].update(length=1 << 50),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_manifest_with_false_values(saved: Path, kind: str) -> None:
    reseal(saved, HOSTILE[kind])
    with pytest.raises(ValueError, match=r"."):
        load(saved)


def test_no_class_is_instantiated_that_was_not_allowed(saved: Path) -> None:
    reseal(saved, lambda m: m.update(structure={"$attrs": "os.system", "fields": {}}))
    with pytest.raises(TypeError, match=r"os\.system"):
        load(saved)


def test_deep_structures_are_refused(saved: Path) -> None:
    body = b'{"magic":' + b"[" * 100_000 + b"]" * 100_000
    (saved / "manifest.json").write_bytes(seal(body))
    assert noticed(saved)


@pytest.mark.row(39)
def test_formats(saved: Path) -> None:
    def newer(fields: dict[str, Any]) -> None:
        for record in (fields, *fields["leaves"], *fields["files"]):
            record["novelty"] = [1, 2]
        fields["format"] = "1.9"

    reseal(saved, newer)
    assert tree.equal(load(saved), SAVED)
    assert verify(saved).format == (1, 9)
    reseal(saved, lambda m: m.update(format="2.0"))
    with pytest.raises(CheckpointFormatError, match=r"2\.0, .*1; install a newer functrain"):
        load(saved)
    reseal(saved, lambda m: m.update(format="1.0", features=["compression"]))
    with pytest.raises(CheckpointFormatError, match="needs compression"):
        read_manifest(saved)


def test_manifest_round_trip(saved: Path) -> None:
    data = (saved / "manifest.json").read_bytes()
    assert parse(data).to_bytes() == data


def test_other_errors_are_not_reported_as_damage(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointReadError, match="Permission denied"):
        load(saved)
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))
    assert noticed(saved)
