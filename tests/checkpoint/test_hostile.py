"""A stranger's checkpoint: whatever its manifest says, loading fails by name, soon, and small."""

from __future__ import annotations

import copy
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import manifests
import numpy as np
import orjson
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import seal, sealed

from functrain.checkpoint import lazy, load, read_manifest, save, verify
from functrain.errors import CheckpointCorruptError, FunctrainError

SAVED = {
    "params": {"w": torch.randn(3, 4), "turned": torch.randn(3, 2).t()},
    "list": [1, 2.5, None, float("nan"), 1 << 70, b"x", (1, "two")],
    "mask": torch.eye(3).to_sparse(),
    "csr": torch.eye(3).to_sparse_csr(),
    "array": np.arange(6, dtype=">i2").reshape(2, 3),
    "number": np.float32(1.5),
    "stream": torch.Generator().manual_seed(3),
    7: {"$odd": torch.zeros(0)},
}
ODD = [
    *(None, True, -1, 0, 1, 2**31, 2**62, 2**63 - 1, 2**64 - 1, 1.5, -0.0, 1e308, "", "x", "../x"),
    *("params.safetensors", "float32", "object", "|O", "cuda:99", "nowhere", "\x00", "$tensor"),
    *([], {}, [[]], [0], [2**62, 2**62], [-1], {"$tensor": 0}, {"$tensor": 10**9}, {"$int": "x"}),
    *({"$enum": "os.system", "value": "true"}, {"$attrs": "os.system", "fields": {}}),
    *({"$float": "zz"}, {"$tuple": 3}, {"$dict": [[1]]}, {"$bytes": "="}, {"$array": {}}),
]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    pairs = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, child in pairs:
        yield from places(child, (*path, key))


def changed(fields: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    result = copy.deepcopy(fields)
    owner = result
    for key in path[:-1]:
        owner = owner[key]
    change(owner, path[-1])
    return result


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("hostile") / "c", SAVED, step=3, info={"a": [1]})


def fails_by_name(path: Path) -> bool:
    """Whether every way of reading fails with our own error, if it fails."""
    told = False
    for read in (read_manifest, verify, load, lazy, lambda p: load(p, only="*"), look):
        try:
            read(path)
        except FunctrainError:
            told = True
    return told


def look(path: Path) -> None:
    for tensor in lazy(path).values():
        tensor.view(torch.uint8) if tensor.is_contiguous() and tensor.ndim else None


@pytest.fixture
def limited() -> Iterator[None]:
    """No more memory than 2 GB above what is in use: a wild allocation fails the test."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.sweep
@pytest.mark.parametrize("stride", [5, 1])
def test_every_value_of_a_manifest_replaced(
    original: Path, tmp_path: Path, limited: None, capsys: pytest.CaptureFixture[str], stride: int
) -> None:
    target = tmp_path / "c"
    shutil.copytree(original, target)
    fields = manifests.read(original)
    chance = random.Random(0)
    count = refused = 0
    for path in list(places(fields))[::stride]:
        if path == ("digest",):
            continue
        for odd in chance.sample(ODD, 6):

            def put(owner: Any, key: Any, odd: Any = odd) -> None:
                owner[key] = odd

            (target / "manifest.json").write_bytes(sealed(changed(fields, path, put)))
            refused += fails_by_name(target)
            count += 1

        def drop(owner: Any, key: Any) -> None:
            del owner[key]

        (target / "manifest.json").write_bytes(sealed(changed(fields, path, drop)))
        refused += fails_by_name(target)
        count += 1
    assert count > 1500 // stride
    assert refused > count / 2
    with capsys.disabled():
        print(f"\n{count} manifests with one value changed, {refused} refused by name, no crash")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_bytes_for_a_manifest_or_a_header(original: Path, data: st.DataObject) -> None:
    target = original.parent / "fuzzed"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(original, target)
    file = target / data.draw(st.sampled_from(sorted(os.listdir(original))))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    same = bytes(content) == file.read_bytes()
    file.write_bytes(content)
    assert fails_by_name(target) != same


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}",
        b"[]",
        b"null",
        b"",
        b'{"magic":"functrain-checkpoint"}',
        b"\xff\xfe",
    ],
)
def test_json_that_is_no_manifest(tmp_path: Path, body: bytes) -> None:
    directory = tmp_path / "c"
    directory.mkdir()
    cut = body[:-1] if body.endswith(b"}") else body
    for data in (body, seal(cut)):
        (directory / "manifest.json").write_bytes(data)
        assert fails_by_name(directory)


def test_a_file_outside_the_checkpoint_is_never_opened(original: Path, tmp_path: Path) -> None:
    target = tmp_path / "c"
    shutil.copytree(original, target)
    fields = manifests.read(original)
    for name in (
        "../params.safetensors",
        "/etc/passwd.safetensors",
        "a/b.safetensors",
        "x\0.safetensors",
    ):
        text = orjson.dumps(fields).replace(b"params.safetensors", orjson.dumps(name)[1:-1])
        (target / "manifest.json").write_bytes(sealed(orjson.loads(text)))
        with pytest.raises(CheckpointCorruptError):
            load(target)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_only_regular_files_are_read(original: Path, tmp_path: Path, kind: str) -> None:
    for name in ("params.safetensors", "manifest.json"):
        target = tmp_path / name.partition(".")[0]
        shutil.copytree(original, target)
        (target / name).rename(tmp_path / f"moved-{name}")
        if kind == "link":
            (target / name).symlink_to(tmp_path / f"moved-{name}")
        elif kind == "directory":
            (target / name).mkdir()
        else:
            os.mkfifo(target / name)
        with pytest.raises(CheckpointCorruptError):
            load(target)
