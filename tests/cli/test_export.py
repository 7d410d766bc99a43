"""``functrain export``: files that torch and safetensors load, or nothing at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import functrain as ft
from functrain.checkpoint import Checkpoints, save
from functrain.checkpoint.exporting import export
from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointExistsError,
    CheckpointWriteError,
    ConfigurationError,
)
from functrain.training.run_record import describe

Run = Callable[..., Any]
HELD = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embedding(tokens)))


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch), batch)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[RunState, Path]:
    """A run of a model with batch normalisation and tied weights, its second names beside it."""
    torch.manual_seed(0)
    program = ft.program(Tied(), loss, ft.optim.SGD(lr=0.1), ema=0.5)
    state = program.init(seed=0)
    for start in range(3):
        state, _ = program.train_step(state, torch.arange(start, start + 4))
    run = RunState(state, LoopState.initial({}), None, {})
    store = Checkpoints(tmp_path / "run")
    store.save(run, step=3, info=describe(program))
    return run, tmp_path / "run"


def loaded(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("what", ["params", "ema"])
def test_weights_load_strictly_into_the_module(
    functrain: Run, trained: tuple[RunState, Path], tmp_path: Path, name: str, what: str
) -> None:
    state, run = trained[0].train, trained[1]
    ended = functrain("export", run, tmp_path / name, "--what", what, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["bytes"] == (tmp_path / name).stat().st_size
    module = Tied()
    module.load_state_dict(loaded(tmp_path / name), strict=True)
    expected = state.params if what == "params" else {**state.params, **state.ema["params"]}
    persistent = {path: value for path, value in state.buffers.items() if path != "scratch"}
    for path, value in {**expected, **persistent}.items():
        assert torch.equal(module.state_dict()[path], value), path
    assert torch.equal(module.head.weight, expected["embedding.weight"])
    assert not torch.equal(state.params["norm.weight"], state.ema["params"]["norm.weight"])


def test_all_is_every_tensor_by_its_path(
    functrain: Run, trained: tuple[RunState, Path], tmp_path: Path
) -> None:
    assert functrain("export", trained[1], tmp_path / "a.safetensors", "--what", "all").code == 0
    found = load_file(tmp_path / "a.safetensors")
    expected = {
        ft.tree.path_string(path): leaf
        for path, leaf in ft.tree.items(trained[0])
        if isinstance(leaf, torch.Tensor)
    }
    assert ft.tree.equal(found, {name: expected[name] for name in found})
    assert found.keys() == expected.keys()


def test_aliases_are_copies_in_safetensors_and_one_tensor_in_a_state_dict(tmp_path: Path) -> None:
    module = Tied()
    place = save(tmp_path / "x", dict(module.state_dict()))
    for name in ("a.safetensors", "a.pt"):
        file = export(place, tmp_path / name, what="all")
        module.load_state_dict(loaded(file), strict=True)
    found = loaded(tmp_path / "a.pt")
    one, other = found["embedding.weight"], found["head.weight"]
    assert one.data_ptr() == other.data_ptr()
    # Not the whole file the tensor came from.
    assert (tmp_path / "a.pt").stat().st_size < 5000


@pytest.mark.parametrize("dtype", BY_NAME.values(), ids=str)
def test_every_dtype_round_trips_or_is_an_error(tmp_path: Path, dtype: torch.dtype) -> None:
    bits = torch.randint(0, 2, (5, 2 * dtype.itemsize), dtype=torch.uint8)
    tree = {"params": {"w": bits.view(dtype), "e": bits[:0].view(dtype), "b": torch.ones(3)}}
    place = save(tmp_path / "x", tree)
    expected = {name: to_bytes(leaf) for name, leaf in tree["params"].items()}
    if dtype in HELD:
        found = load_file(export(place, tmp_path / "w.safetensors"))
        assert found["w"].dtype is dtype
    else:
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(ConfigurationError, match=f"no dtype {name}, which w is of"):
            export(place, tmp_path / "w.safetensors")
        assert not (tmp_path / "w.safetensors").exists()
        return
    assert ft.tree.equal({name: to_bytes(found[name]) for name in expected}, expected)


def to_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor.view(torch.uint8)


def test_larger_leaves_than_a_block_and_permuted_ones(tmp_path: Path) -> None:
    large = torch.randn(700, 900)
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    place = save(tmp_path / "x", {"params": {"l": large.t(), "c": last, "s": torch.tensor(1)}})
    found = load_file(export(place, tmp_path / "w.safetensors"))
    assert torch.equal(found["l"], large.t())
    assert torch.equal(found["c"], last)
    assert found["s"].item() == 1


def test_each_tensor_is_aligned_to_its_elements(tmp_path: Path) -> None:
    dtypes = (torch.uint8, torch.float64, torch.float16, torch.float32)
    tree = {"params": {str(dtype): torch.ones(3).to(dtype) for dtype in dtypes}}
    data = export(save(tmp_path / "x", tree), tmp_path / "w.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    entries = orjson.loads(data[8:end])
    assert entries.pop("__metadata__") == {"format": "pt"}
    for name, entry in entries.items():
        assert (end + entry["data_offsets"][0]) % tree["params"][name].itemsize == 0


class TestOut:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return save(tmp_path / "x", {"params": {"w": torch.ones(2)}})

    def test_a_file_is_replaced_only_when_asked(self, place: Path, tmp_path: Path) -> None:
        out = tmp_path / "w.safetensors"
        out.write_bytes(b"precious")
        with pytest.raises(CheckpointExistsError, match="exists; overwrite=True"):
            export(place, out)
        assert out.read_bytes() == b"precious"
        assert load_file(export(place, out, overwrite=True))["w"].tolist() == [1.0, 1.0]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["w.safetensors", "x"]

    def test_a_file_that_appears_meanwhile_is_not_replaced(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, link = tmp_path / "w.safetensors", os.link

        def late(source: Any, target: Any) -> None:
            out.write_bytes(b"precious")
            link(source, target)

        monkeypatch.setattr(os, "link", late)
        with pytest.raises(CheckpointExistsError):
            export(place, out)
        assert out.read_bytes() == b"precious"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["w.safetensors", "x"]

    def test_where_links_do_not_work_it_is_renamed(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(source: Any, target: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
        assert load_file(export(place, tmp_path / "w.safetensors"))["w"].tolist() == [1.0, 1.0]

    def test_a_checkpoint_is_never_written_to(self, place: Path) -> None:
        before = (place / "params.safetensors").read_bytes()
        with pytest.raises(CheckpointExistsError, match="never changed"):
            export(place, place / "params.safetensors", overwrite=True)
        assert (place / "params.safetensors").read_bytes() == before
        with pytest.raises(CheckpointExistsError, match="is a directory"):
            export(place, place.parent, overwrite=True)

    def test_a_full_disk_leaves_nothing_and_the_old_file(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "w.safetensors"
        out.write_bytes(b"precious")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointWriteError, match="was not saved: No space left"):
            export(place, out, overwrite=True)
        assert out.read_bytes() == b"precious"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["w.safetensors", "x"]

    def test_it_is_durable_before_it_has_its_name(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, calls = tmp_path / "w.safetensors", []
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            calls.append(out.exists())
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", noted)
        export(place, out)
        assert calls == [False, True]  # the file, and after the renaming the directory


@pytest.mark.parametrize("role", ["params", "optimizer"])
def test_damage_anywhere_is_an_error_and_nothing_is_written(tmp_path: Path, role: str) -> None:
    tree = {"params": {"w": torch.ones(2)}, "optimizer": {"m": torch.ones(2)}}
    place = save(tmp_path / "x", tree)
    payload = place / f"{role}.safetensors"
    payload.write_bytes(payload.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointCorruptError):
        export(place, tmp_path / "w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--what", "weights"], "'params', 'trained', 'ema' or 'all'"),
        (["--format", "onnx"], "expected 'safetensors' or 'state_dict'"),
        (["--what", "ema"], "no averaged weights"),
    ],
)
def test_what_cannot_be_exported_is_2_and_one_line(
    functrain: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    place = save(tmp_path / "x", {"params": {"w": torch.ones(2)}})
    out = tmp_path / "out" / "w.safetensors"
    assert functrain("export", place, out, *options).refuses(message)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["w.onnx", "w.gguf", "w.h5", "weights", "w.safetensor", ".pt"])
def test_a_name_of_another_format_is_an_error_with_the_formats(
    functrain: Run, tmp_path: Path, name: str
) -> None:
    place = save(tmp_path / "x", {"params": {"w": torch.ones(2)}})
    ended = functrain("export", place, tmp_path / name)
    assert ended.refuses(".safetensors, .pt, .pth, .bin")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_format_in_words_allows_any_name(tmp_path: Path) -> None:
    place = save(tmp_path / "x", {"params": {"w": torch.ones(2)}})
    assert load_file(export(place, tmp_path / "weights", format="safetensors")).keys() == {"w"}
    assert load_file(export(place, tmp_path / "W.SAFETENSORS")).keys() == {"w"}


def test_two_tensors_of_one_name_are_an_error(tmp_path: Path) -> None:
    tree = {"params": {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}}
    with pytest.raises(ConfigurationError, match=r"two tensors are called 'params\.a\.b'"):
        export(save(tmp_path / "x", tree), tmp_path / "w.safetensors")


def test_a_training_state_by_itself(trained: tuple[RunState, Path], tmp_path: Path) -> None:
    state = attrs.evolve(trained[0].train, ema=None)
    found = load_file(export(save(tmp_path / "s", state), tmp_path / "w.safetensors"))
    assert found.keys() == {*state.params, *state.buffers}
