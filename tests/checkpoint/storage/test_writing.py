"""Every byte is in its place, and the safetensors library reads what we write."""

from __future__ import annotations

import os
import random
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from xxhash import xxh3_128_hexdigest

from functrain import tree
from functrain.checkpoint import load, read_manifest, save
from functrain.checkpoint.storage.writing import BLOCK, create_in_blocks

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)),
        max_size=6,
    )
)
def test_read_by_the_library(
    tmp_path_factory: pytest.TempPathFactory, declared: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    params = {
        name: torch.randint(0, 2, shape).to(dtype) for name, (dtype, shape) in declared.items()
    }
    path = save(tmp_path_factory.mktemp("t") / "c", {"train": {"params": params}})
    if params:
        read = load_file(path / "params.safetensors")
        assert set(read) == {"format~2" if name == "format" else name for name in params}
        assert all(tree.equal(read[name], params[name]) for name in params if name != "format")


def test_params_alone_load_into_a_module(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight  # tied
    path = save(tmp_path / "c", {"params": dict(model.state_dict()), "other": torch.ones(3)})
    other = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    other[1].weight = other[0].weight
    load_model(other, path / "params.safetensors")
    assert tree.equal(dict(model.state_dict()), dict(other.state_dict()))


def test_conjugate_and_negative_views_are_written_as_seen(tmp_path: Path) -> None:
    value = torch.randn(3, dtype=torch.complex64)
    saved = {"conj": value.conj(), "neg": value.clone().conj().imag}
    read = load_file(save(tmp_path / "c", saved) / "rest.safetensors")
    assert tree.equal(read["neg"], saved["neg"])
    assert tree.equal(read["conj"].reshape(-1), tree.to_bytes(saved["conj"]))


def test_other_dtypes_are_raw_bytes(tmp_path: Path) -> None:
    value = torch.randn(2, dtype=torch.complex128)
    read = load_file(save(tmp_path / "c", {"z": value}) / "rest.safetensors")
    assert read["z"].shape == (2, 16)
    assert tree.equal(read["z"].reshape(-1), tree.to_bytes(value))


def test_colliding_names_stay_apart(tmp_path: Path) -> None:
    saved = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), "__metadata__": torch.ones(2)}
    path = save(tmp_path / "c", saved)
    assert tree.equal(saved, load(path))
    with safe_open(path / "rest.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["__metadata__~2", "a.b", "a.b~2"]


def test_names_are_paths_without_the_role(tmp_path: Path) -> None:
    one = torch.ones(1)
    saved = {
        "params": {"a": one, "b": {"c": one + 1}},
        "\ud800": {"params": {"d": one + 2}},
        "x.y": {"params": {"e": one + 3}},
        "ema": one + 4,
    }
    path = save(tmp_path / "c", saved)
    with safe_open(path / "params.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["a", "b.c", "d", "e"]
    with safe_open(path / "ema.safetensors", "pt") as file:
        assert list(file.keys()) == ["ema"]
    assert tree.equal(saved, load(path))


def test_frozen_tensors_have_a_separate_file(tmp_path: Path) -> None:
    saved = {"params": {"base": torch.ones(2), "head": torch.zeros(3)}, "table": torch.ones(1)}
    path = save(tmp_path / "c", saved, frozen=["params.base", "table"])
    assert list(load_file(path / "frozen.safetensors")) == ["base", "table"]
    assert list(load_file(path / "params.safetensors")) == ["head"]
    assert tree.equal(saved, load(path))


def test_every_tensor_is_aligned(tmp_path: Path) -> None:
    saved = {
        "flag": torch.ones(3, dtype=torch.bool),
        "half": torch.ones(3).half(),
        "w": torch.ones(5),
    }
    manifest = read_manifest(save(tmp_path / "c", saved | {"d": torch.ones(1).double()}))
    for leaf in manifest.leaves:
        assert leaf.offset % saved.get(leaf.path, torch.ones(1).double()).element_size() == 0


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save(tmp_path / "c", {"w": torch.ones(1)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o640}


@pytest.mark.parametrize("piece", [70_001, BLOCK, 3 * BLOCK])
@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 4096])
@pytest.mark.parametrize("short", [False, True])
def test_files_of_any_length_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, piece: int, short: bool
) -> None:
    data, pwrite, chance = random.Random(0).randbytes(length), os.pwrite, random.Random(1)

    def write_some(descriptor: int, data: Any, offset: int) -> int:
        return pwrite(descriptor, data[: chance.randrange(1, BLOCK)], offset)

    if short:
        monkeypatch.setattr(os, "pwrite", write_some)
    with create_in_blocks(tmp_path / "file", length) as append:
        for start in range(0, length, piece):
            part = data[start : start + piece]
            assert append([memoryview(part)]) == xxh3_128_hexdigest(part)
    assert (tmp_path / "file").read_bytes() == data


def test_hashes_match_the_written_bytes_even_if_the_source_changes(tmp_path: Path) -> None:
    data, stop = bytearray(5 * BLOCK), threading.Event()

    def change() -> None:
        while not stop.is_set():
            for index in range(0, len(data), 4096):
                data[index] = (data[index] + 1) % 256

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with create_in_blocks(tmp_path / "file", len(data)) as append:
            digest = append([memoryview(data)])
    finally:
        stop.set()
        changing.join()
    assert xxh3_128_hexdigest((tmp_path / "file").read_bytes()) == digest
