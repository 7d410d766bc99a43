"""What is saved is loaded: structure, scalars, bytes, dtypes, memory layout, aliases."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain import tree
from functrain.checkpoint import load, read_manifest, save
from functrain.checkpoint.dtypes import BY_NAME
from functrain.checkpoint.memory import memory, on_host
from functrain.errors import CheckpointTypeError, UnsupportedLeafError
from functrain.rng import Rng
from functrain.state import Counters, TrainState

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e8m0fnu),
    *(torch.complex64, torch.complex128, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]
SHAPES = [(), (0,), (1,), (3,), (2, 3), (2, 0, 3), (1, 1), (2, 3, 2, 2), (2, 3, 1, 1)]


class Point(NamedTuple):
    x: Any
    y: Any


class Color(Enum):
    RED = "red"
    DEEP = 7


@attrs.frozen(eq=False)
class Record:
    _hidden: Any
    shown: Any


def channels_last(value: torch.Tensor) -> torch.Tensor:
    if value.ndim != 4 or not value.numel():
        return value
    _, c, h, w = value.shape
    laid = torch.empty_strided(value.shape, (c * h * w, 1, w * c, c), dtype=value.dtype)
    laid.untyped_storage().copy_(value.untyped_storage())
    return laid


VIEWS: dict[str, Any] = {
    "plain": lambda value: value,
    "transposed": lambda value: value.permute(tuple(reversed(range(value.ndim)))),
    "slice of a large storage": lambda value: (
        value.repeat(5, *([1] * value.ndim))[2:3][0]
        if value.dtype.itemsize > 1
        else value[..., None][..., 0]
    ),
    "strided": lambda value: value[..., ::2] if value.ndim else value,
    "channels last": channels_last,
    "expanded": lambda value: value.expand(2, *value.shape),
    "conjugate": lambda value: value.conj() if value.is_complex() else value,
    "negative": lambda value: value.conj().imag if value.is_complex() else value,
    "parameter": lambda value: torch.nn.Parameter(value, requires_grad=value.is_floating_point()),
}


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(SHAPES))
    count = torch.Size(shape).numel() * dtype.itemsize
    if dtype == torch.bool:
        data = bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    else:
        data = draw(st.binary(min_size=count, max_size=count))
    value = torch.empty(shape, dtype=dtype)
    memory(value)[:] = data
    view: torch.Tensor = VIEWS[draw(st.sampled_from(sorted(VIEWS)))](value)
    return view


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 66), 1 << 66)
    | st.floats()
    | st.binary(max_size=4)
    | st.text(max_size=4)
)
keys = st.text(max_size=4) | st.sampled_from(["params", "ema", "$tensor", "a.b", "\ud800"])


@st.composite
def trees(draw: st.DrawFn) -> Any:
    """A tree in which some tensors are there twice, as objects or as views of the same memory."""
    pool = draw(st.lists(tensors(), min_size=1, max_size=4))
    again = st.sampled_from(pool) | st.sampled_from(pool).map(lambda tensor: tensor.view_as(tensor))
    return draw(
        st.recursive(
            scalars | again,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.lists(inner, max_size=3).map(tuple)
                | st.dictionaries(keys | st.integers(), inner, max_size=4)
                | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
                | st.tuples(inner, inner).map(lambda pair: Point(*pair))
                | st.tuples(inner, inner).map(lambda pair: Record(*pair))
            ),
            max_leaves=12,
        )
    )


def shown(tensor: torch.Tensor) -> Any:
    """What of a tensor's memory is seen; equal for aliases."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.is_conj(), tensor.is_neg()


def same(first: Any, second: Any) -> bool:
    """Equality by bytes, whatever the strides are."""

    def plain(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return leaf.detach().clone(memory_format=torch.contiguous_format)

    return tree.equal(tree.map(plain, first), tree.map(plain, second))


def alias_pattern(value: Any) -> list[int]:
    found = [leaf for _, leaf in tree.items(value) if isinstance(leaf, torch.Tensor)]
    names = [shown(leaf) if leaf.numel() else id(leaf) for leaf in found]
    return [names.index(name) for name in names]


@settings(max_examples=300, deadline=None)
@given(trees())
def test_round_trip(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        save(Path(directory, "c"), value)
        loaded = load(Path(directory, "c"), types=(Point, Record))
        again = load(Path(directory, "c"), like=value)
        save(Path(directory, "d"), loaded)
        assert same(value, loaded)
        assert same(value, again)
        assert same(value, load(Path(directory, "d"), types=(Point, Record)))
    assert alias_pattern(loaded) == alias_pattern(value)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_dtype_of_torch(tmp_path: Path, name: str) -> None:
    value = torch.empty((2, 3), dtype=BY_NAME[name])
    memory(value)[:] = bytes(i % 2 for i in range(value.nbytes))
    saved = {"plain": value, "turned": value.t()}
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


def test_aliases_are_stored_once_and_come_back_as_one(tmp_path: Path) -> None:
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


def test_a_transpose_of_the_same_memory_is_no_alias(tmp_path: Path) -> None:
    weight = torch.randn(3, 3)
    saved = {
        "w": weight,
        "turned": weight.t(),
        "whole": weight.view(9),
        "bits": weight.view(torch.int32),
    }
    assert tree.equal(saved, load(save(tmp_path / "c", saved)))


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


def test_classes_are_made_only_if_shown(tmp_path: Path) -> None:
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


def test_changed_fields_are_told(tmp_path: Path) -> None:
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
    "sparse": lambda: torch.eye(2).to_sparse(),
    "sparse_csr": lambda: torch.eye(2).to_sparse_csr(),
    "subclass": lambda: torch.ones(2).as_subclass(type("Mine", (torch.Tensor,), {})),
    "numpy": lambda: torch.ones(2).numpy()[0],
    "array": lambda: torch.ones(2).numpy(),
    "generator": lambda: torch.Generator(),
    "function": lambda: print,
    "int subclass": lambda: type("Count", (int,), {})(3),
    "set": lambda: {1},
    "key": lambda: {(1, 2): 3},
    "bool key": lambda: {True: 3},
    "torch.Size": lambda: torch.Size([1]),
    "itself": cyclic,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_cannot_come_back_exactly_is_refused_by_path(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnsupportedLeafError, match=r"layers\.0"):
        save(tmp_path / "c", {"layers": [REFUSED[kind]()]})
    assert not any(tmp_path.iterdir())


def test_info_and_metrics_are_exact(tmp_path: Path) -> None:
    info = {"recipe": {"lr": (1e-3, None), "big": 1 << 80}, "$odd": float("inf")}
    path = save(tmp_path / "c", {}, info=info, step=3, metrics={"loss": torch.tensor(0.5)})
    manifest = read_manifest(path)
    assert manifest.info == info
    assert (manifest.step, manifest.metrics) == (3, {"loss": 0.5})
    assert manifest.versions["torch"] == torch.__version__
    with pytest.raises(UnsupportedLeafError, match=r"info\.w"):
        save(tmp_path / "d", {}, info={"w": torch.ones(1)})
