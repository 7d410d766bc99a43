"""Looking at leaves through memory maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from functrain import tree
from functrain.checkpoint import lazy, load, save, verify
from functrain.errors import CheckpointCorruptError, NoCheckpointError


def test_leaves_are_those_saved(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    saved = {
        "params": {"w": weight, "tied": weight, "turned": torch.randn(2, 3).t()},
        "half": torch.randn(5).bfloat16(),
        "raw": torch.randn(2, dtype=torch.complex128),
        "flag": torch.tensor(True),
        "empty": torch.zeros(0, 3),
    }
    leaves = lazy(save(tmp_path / "c", saved))
    expected = {".".join(map(str, path)): leaf for path, leaf in tree.items(saved)}
    assert list(leaves) == list(expected)
    assert len(leaves) == 7
    assert tree.equal(dict(leaves), expected)


def test_writing_to_one_changes_no_file(tmp_path: Path) -> None:
    path = save(tmp_path / "c", {"w": torch.ones(1000)})
    lazy(path)["w"].zero_()
    verify(path)
    assert torch.equal(load(path)["w"], torch.ones(1000))


def test_ambiguous_paths_stay_apart(tmp_path: Path) -> None:
    saved = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1)}
    leaves = lazy(save(tmp_path / "c", saved))
    assert {name: leaf.item() for name, leaf in leaves.items()} == {"a.b": 0, "a.b~2": 1}


def test_a_file_cut_short_is_noticed_before_anything_is_mapped(tmp_path: Path) -> None:
    path = save(tmp_path / "c", {"w": torch.ones(10_000)})
    file = path / "rest.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointCorruptError, match="has 5000 bytes"):
        lazy(path)
    with pytest.raises(NoCheckpointError):
        lazy(tmp_path / "nothing")


def test_mapped_leaves_survive_the_replacement_of_their_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path / "c", {"w": torch.ones(1000)})
    leaves = lazy(path)
    save(path, {"w": torch.zeros(1000)}, overwrite=True)
    assert (leaves["w"] == 1).all()
    assert (lazy(path)["w"] == 0).all()
