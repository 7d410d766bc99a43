"""Reading: every byte to its place, in groups and in parallel, and only what is wanted."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from functrain import tree
from functrain.checkpoint import read_manifest, save
from functrain.checkpoint.format.records import CHUNK
from functrain.checkpoint.storage import reading
from functrain.errors import CheckpointCorruptError


def mixed() -> dict[str, Any]:
    """Leaves around all the sizes at which reading changes its ways."""
    chance, mib = random.Random(0), 1 << 20
    sizes = [0, 1, 7, 4096, mib - 1, mib, mib + 1, 3 * mib, CHUNK - 1, CHUNK + 5]
    sizes += [chance.randrange(2000) for _ in range(2500)]
    chance.shuffle(sizes)
    values = torch.randint(0, 256, (max(sizes),), dtype=torch.uint8)
    return {f"{number}": values[:size].clone() for number, size in enumerate(sizes)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    value = mixed()
    params = {"params": value, "optimizer": {"step": torch.tensor(3)}}
    return save(tmp_path_factory.mktemp("reading") / "c", params), value


def read(path: Path, **options: Any) -> dict[str, torch.Tensor]:
    manifest = read_manifest(path)
    found = reading.read(path, manifest.files, manifest.leaves, {}, **options)
    return {manifest.leaves[index].path: tensor for index, tensor in found.items()}


def test_leaves_of_all_sizes(saved: tuple[Path, dict[str, Any]]) -> None:
    path, value = saved
    for check in (True, False):
        found = read(path, verify=check)
        assert tree.equal(value, {name: found[f"params.{name}"] for name in value})
    leaves = read_manifest(path).leaves
    assert all(len(leaf.hashes) == -(-leaf.length // CHUNK) for leaf in leaves)


def test_a_read_may_return_at_any_byte(
    saved: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, value = saved
    preadv, chance = os.preadv, random.Random(2)

    def short(descriptor: int, targets: list[memoryview], offset: int) -> int:
        some = targets[: chance.randrange(1, len(targets) + 1)]
        some[-1] = some[-1][: chance.randrange(1, len(some[-1]) + 1)]
        return preadv(descriptor, some, offset)

    monkeypatch.setattr(os, "preadv", short)
    found = read(path)
    assert tree.equal(value, {name: found[f"params.{name}"] for name in value})


def test_only_what_is_wanted_is_opened(tmp_path: Path) -> None:
    value = {"params": {"w": torch.ones(3), "b": torch.zeros(2)}, "ema": {"w": torch.ones(3)}}
    path = save(tmp_path / "c", value)
    (path / "ema.safetensors").unlink()
    assert list(read(path, wanted=[1])) == ["params.b"]
    with pytest.raises(CheckpointCorruptError, match=r"ema\.safetensors is missing"):
        read(path)


def test_a_selected_alias_is_read_from_the_first_leaf(tmp_path: Path) -> None:
    weight = torch.randn(3)
    path = save(tmp_path / "c", {"ema": {"w": weight}, "params": {"w": weight}})
    assert tree.equal(read(path, wanted=[1]), {"params.w": weight})


@pytest.mark.parametrize("size", [3, 2 << 20, CHUNK + 1000])
def test_damage_is_reported_with_leaf_and_offset(tmp_path: Path, size: int) -> None:
    value = {"params": {"a": torch.zeros(5), "b": torch.zeros(size, dtype=torch.uint8)}}
    path = save(tmp_path / "c", value)
    file = path / "params.safetensors"
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")
    with pytest.raises(CheckpointCorruptError, match=r"params\.b are not those saved \(bytes \d+"):
        read(path)
    assert read(path, verify=False)["params.b"][-1] == 1
