"""Loading returns what was saved: structure, scalars, bytes, dtypes, memory layout, aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from checkpoint_trees import Color, Point, Record

from functrain import tree
from functrain.checkpoint import load, read_manifest, save
from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.tensor_bytes import memory, on_host
from functrain.core.rng import Rng
from functrain.core.state import Counters, TrainState
from functrain.errors import CheckpointTypeError, UnsupportedError


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_dtype_of_torch(tmp_path: Path, name: str) -> None:
    value = torch.empty((2, 3), dtype=BY_NAME[name])
    memory(value)[:] = bytes(i % 2 for i in range(value.nbytes))
    other = torch.empty((2, 3), dtype=BY_NAME[name])
    memory(other)[:] = bytes((i + 1) % 2 for i in range(value.nbytes))
    saved = {"plain": value, "turned": other.t()}
    loaded = load(save(tmp_path / "c", saved))
    for key, tensor in saved.items():
        assert loaded[key].dtype == tensor.dtype
        assert loaded[key].shape == tensor.shape
        assert loaded[key].stride() == tensor.stride()
        assert bytes(memory(on_host(loaded[key]))) == bytes(memory(on_host(tensor)))


def test_memory_layout_is_kept(tmp_path: Path) -> None:
    # Kernels are chosen by layout, so a resumed run has other bits if it is lost.
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    pointwise = torch.randn(4, 3, 1, 1).to(memory_format=torch.channels_last)
    turned = torch.randn(2, 3, 4).permute(2, 0, 1)
    sliced = torch.randn(8, 8)[:, :3]
    saved = {"w": weight, "p": pointwise, "t": turned, "s": sliced}
    loaded = load(save(tmp_path / "c", saved))
    assert tree.equal(saved, loaded)
    assert loaded["w"].stride() == weight.stride()
    assert loaded["p"].stride() == pointwise.stride()
    assert loaded["t"].stride() == turned.stride()
    assert loaded["s"].is_contiguous()


@pytest.mark.parametrize("count", [0, 1])
def test_stride_of_a_size_that_does_not_count(tmp_path: Path, count: int) -> None:
    value = torch.randn(4)[::2][:count]
    loaded = load(save(tmp_path / "c", {"v": value}))["v"]
    assert loaded.tolist() == value.tolist()


def test_only_logical_bytes_are_written(tmp_path: Path) -> None:
    large = torch.zeros(1_000_000)
    manifest = read_manifest(save(tmp_path / "c", {"part": large[5:7], "wide": large[:1]}))
    assert [leaf.length for leaf in manifest.leaves] == [8, 4]


def test_aliases_are_stored_once_and_restored_as_one(tmp_path: Path) -> None:
    weight = torch.randn(1000)
    saved = {
        "params": {"encoder": weight, "decoder": weight, "view": weight[:]},
        "copy": weight + 0,
    }
    path = save(tmp_path / "c", saved)
    loaded = load(path)
    assert loaded["params"]["encoder"] is loaded["params"]["decoder"]
    assert loaded["params"]["encoder"] is loaded["params"]["view"]
    loaded["params"]["encoder"].zero_()
    assert torch.equal(loaded["copy"], weight)
    assert (path / "params.safetensors").stat().st_size < 4500


def test_a_view_with_another_stride_that_does_not_count_is_an_alias(tmp_path: Path) -> None:
    value = torch.randn(4)[::2][:1]
    loaded = load(save(tmp_path / "c", {"v": value, "w": value.as_strided((1,), (7,))}))
    assert loaded["v"] is loaded["w"]


def test_train_state_needs_no_like(tmp_path: Path) -> None:
    state = TrainState(
        params={"w": torch.ones(2)},
        buffers={},
        optimizer={"step": torch.tensor(0.0), "exp_avg": {"w": torch.zeros(2)}},
        scheduler={"horizon": None},
        ema=None,
        loss_scale=None,
        rng=Rng(7),
        counters=Counters(1, 2, 3, 4, 5, torch.tensor(0)),
    )
    path = save(tmp_path / "c", state)
    assert tree.equal(state, load(path))
    assert sorted(f.name for f in path.iterdir()) == [
        "manifest.json",
        "optimizer.safetensors",
        "params.safetensors",
        "rest.safetensors",
    ]


def test_classes_are_instantiated_only_if_allowed(tmp_path: Path) -> None:
    saved = {"r": Record(1, 2), "c": Color.DEEP, "p": Point(1, 2)}
    path = save(tmp_path / "c", saved)
    with pytest.raises(CheckpointTypeError, match=r"Record.*types="):
        load(path)
    only_record = load(save(tmp_path / "p", saved["p"]))
    assert only_record == (1, 2)
    assert type(only_record) is tuple
    for loaded in (load(path, types=(Record, Color, Point)), load(path, like=saved)):
        assert loaded["c"] is Color.DEEP
        assert type(loaded["p"]) is Point
        assert type(loaded["r"]) is Record


def test_changed_fields_are_reported(tmp_path: Path) -> None:
    path = save(tmp_path / "c", Record(1, 2))
    changed = attrs.make_class("Record", ["shown", "new"])
    changed.__module__, changed.__qualname__ = Record.__module__, Record.__qualname__
    with pytest.raises(CheckpointTypeError, match=r"_hidden, shown, but has shown, new"):
        load(path, types=(changed,))


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


REFUSED = {
    "meta": lambda: torch.empty(2, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "opaque": lambda: torch.ones(2).to_mkldnn(),
    "subclass": lambda: torch.ones(2).as_subclass(type("Mine", (torch.Tensor,), {})),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
    "memory format": lambda: torch.channels_last,
    "function": lambda: print,
    "int subclass": lambda: type("Count", (int,), {})(3),
    "set": lambda: {1},
    "key": lambda: {(1, 2): 3},
    "bool key": lambda: {True: 3},
    "itself": cyclic,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_leaves_that_cannot_be_restored_exactly_are_refused_by_path(
    tmp_path: Path, kind: str
) -> None:
    with pytest.raises(UnsupportedError, match=r"layers\.0"):
        save(tmp_path / "c", {"layers": [REFUSED[kind]()]})
    assert not any(tmp_path.iterdir())


def test_info_and_metrics_are_exact(tmp_path: Path) -> None:
    info = {"recipe": {"lr": (1e-3, None), "big": 1 << 80}, "$odd": float("inf")}
    path = save(tmp_path / "c", {}, info=info, step=3, metrics={"loss": torch.tensor(0.5)})
    manifest = read_manifest(path)
    assert manifest.info == info
    assert (manifest.step, manifest.metrics) == (3, {"loss": 0.5})
    assert manifest.versions["torch"] == torch.__version__
    with pytest.raises(UnsupportedError, match=r"info\.w"):
        save(tmp_path / "d", {}, info={"w": torch.ones(1)})
