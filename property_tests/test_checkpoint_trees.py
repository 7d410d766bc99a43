"""The law of checkpoints: every tree loads bit for bit, and the safetensors library agrees."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_trees import TYPES, alias_pattern, exact, trees
from hypothesis import given, settings
from safetensors import safe_open

from functrain import tree
from functrain.checkpoint import load, read_manifest, save
from functrain.checkpoint.format.encoding import encode

EXAMPLES = {"long": 20_000, "full": 300}.get(os.environ.get("FUNCTRAIN_EXAMPLES", ""), 30)
# dtypes that version 0.4.3 of the library reads; all others are raw bytes to it.
KNOWN = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
}
counts = {"trees": 0, "tensors": 0, "compared with the safetensors library": 0}


@pytest.fixture(scope="module", autouse=True)
def _counted(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{said}")


@settings(max_examples=EXAMPLES)
@given(trees())
def test_every_tree_loads_as_saved(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = save(Path(directory, "c"), value)
        loaded = load(path, types=TYPES)
        assert exact(loaded) == exact(value)
        assert exact(load(path, like=value)) == exact(value)
        assert alias_pattern(loaded) == alias_pattern(value)
        again = save(Path(directory, "d"), loaded)
        assert _contents(again) == _contents(path)
        _agrees(path, value)
    counts["trees"] += 1


def _contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("*.safetensors")}


def _agrees(path: Path, value: Any) -> None:
    """The safetensors library finds the bytes of every tensor that is stored."""
    leaves = read_manifest(path).leaves
    _, tensors = encode(value)
    expected: dict[str, list[Any]] = {}
    for leaf, (_, tensor) in zip(leaves, tensors, strict=True):
        counts["tensors"] += 1
        if leaf.alias_of is None:
            shape, dtype = list(leaf.shape), tensor.dtype
            if dtype not in KNOWN:
                shape, dtype = [*shape, dtype.itemsize], torch.uint8
            entry = dtype, shape, tree.to_bytes(tensor).tolist()
            expected.setdefault(leaf.file, []).append(entry)
    for file, entries in expected.items():
        with safe_open(path / file, "pt") as opened:
            found = [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118 (no dict)
        got = [(each.dtype, list(each.shape), tree.to_bytes(each).tolist()) for each in found]
        assert sorted(got, key=repr) == sorted(entries, key=repr)
        counts["compared with the safetensors library"] += len(found)
