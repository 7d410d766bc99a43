"""Checkpoints that released versions wrote are read, and today's version writes the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from functrain import tree
from functrain.checkpoint import load, read_manifest, save, verify

from .golden import DIRECTORY, PRESENT, TYPES, everything, run

MADE = {"everything": everything, "run": run}
KEPT = sorted(path for path in DIRECTORY.glob("*/*") if path.is_dir())


def plain(leaf: Any) -> Any:
    return (
        leaf.to_dense() if isinstance(leaf, torch.Tensor) and leaf.layout != torch.strided else leaf
    )


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_written_tensors_are_read_back(path: Path) -> None:
    expected = tree.map(plain, MADE[path.name]())
    verify(path)
    for loaded in (load(path, types=TYPES), load(path, like=MADE[path.name]())):
        assert repr_of(tree.map(plain, loaded)) == repr_of(expected)


def repr_of(value: Any) -> dict[str, Any]:
    """Leaves by path, tensors by their bytes and strides, others by type and representation."""

    def shown(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.dtype, leaf.shape, bytes(tree.to_bytes(leaf).tolist())
        return type(leaf), getattr(leaf, "dtype", None), repr(leaf)

    return {tree.path_string(path): shown(leaf) for path, leaf in tree.items(value)}


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_format_does_not_change_unnoticed(name: str, tmp_path: Path) -> None:
    before = read_manifest(PRESENT / name)
    after_path = save(
        tmp_path / name, MADE[name](), step=before.step, metrics=before.metrics, info=before.info
    )
    after = read_manifest(after_path)
    assert after.structure == before.structure
    assert after.leaves == before.leaves
    assert after.files == before.files
    for file in before.files:
        assert (after_path / file.name).read_bytes() == (PRESENT / name / file.name).read_bytes()
    keys = [
        list(orjson.loads((p / "manifest.json").read_bytes())) for p in (after_path, PRESENT / name)
    ]
    assert keys[0] == keys[1]


def test_the_metrics_and_info_of_a_run() -> None:
    manifest = read_manifest(PRESENT / "run")
    assert manifest.step == 5
    assert manifest.metrics["loss"] == 0.5
    assert manifest.info["recipe"] == {"lr": 0.1}
