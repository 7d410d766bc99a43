"""Leaves of several tensors: sparse, NumPy, generators, subclasses; and files that lie of them."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_trees import TYPES, Level, Right, Scaled, Word, exact

from functrain.checkpoint import load, read_manifest, save
from functrain.checkpoint.format.decoding import decode
from functrain.checkpoint.format.encoding import encode
from functrain.checkpoint.format.mismatches import counterparts, mismatches
from functrain.checkpoint.format.records import Leaf
from functrain.errors import (
    CheckpointDeviceError,
    CheckpointMismatchError,
    CheckpointTypeError,
    FunctrainError,
    UnsupportedError,
)

EYE = torch.eye(4, 6)
SPARSE = {
    "coo": EYE.to_sparse(),
    "uncoalesced": torch.sparse_coo_tensor(
        torch.tensor([[0, 0], [1, 1]]), torch.ones(2), (2, 2), check_invariants=True
    ),
    "hybrid": torch.randn(3, 4, 2).to_sparse(sparse_dim=2),
    "no dimension": torch.tensor(3.0).to_sparse(),
    "empty": torch.zeros(3, 0).to_sparse(),
    "no values": torch.zeros(3, 4).to_sparse(),
    "half": EYE.half().to_sparse(),
    "csr": EYE.to_sparse_csr(),
    "batched": torch.stack([EYE, EYE]).to_sparse_csr(),
    "int32": torch.sparse_csr_tensor(
        torch.tensor([0, 1], dtype=torch.int32),
        torch.tensor([2], dtype=torch.int32),
        torch.ones(1),
        (1, 3),
        check_invariants=True,
    ),
    "csc": EYE.to_sparse_csc(),
    "bsr": EYE.to_sparse_bsr((2, 3)),
    "bsc": EYE.to_sparse_bsc((2, 3)),
    "dense in blocks": torch.randn(4, 6, 2).to_sparse_bsr((2, 3), dense_dim=1),
}
ARRAYS = {
    "matrix": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    "turned": np.arange(24).astype("<M8[s]").reshape(2, 3, 4).transpose(1, 2, 0),
    "no dimension": np.array(2.5, dtype=np.float16),
    "text": np.array(["a", "bé"]),
    "fields": np.zeros(2, [("a", "<i2"), ("b", ">f8", (2,)), ("c", [("d", "S3")])]),
    "a field": np.zeros(3, [("a", "<i1"), ("b", "<f8")])["b"],
    "backwards": np.arange(4)[::-1],
    "columns backwards": np.asfortranarray(np.arange(6).reshape(2, 3))[:, ::-1],
    "spread": np.broadcast_to(np.float32(1), (2, 3)),
    "no values": np.empty((0, 3), "V7"),
    "long": np.full(2, np.longdouble(1) / 3),
}


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def no_blocks() -> Any:
    """Make a tensor for which ``to_dense`` of torch 2.13 divides by 0."""
    indices = torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    return torch.sparse_bsr_tensor(*indices, torch.ones(0, 0, 0), (0, 0), check_invariants=True)


@pytest.mark.parametrize("name", sorted(SPARSE))
def test_sparse_tensors_come_back(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "c", {"adjacency": SPARSE[name]})
    loaded = load(path, like={"adjacency": SPARSE[name]})["adjacency"]
    assert exact(loaded) == exact(SPARSE[name])
    assert torch.equal(loaded.to_dense(), SPARSE[name].to_dense())


def test_parts_are_leaves_of_the_manifest(tmp_path: Path) -> None:
    tree = {"s": SPARSE["coo"], "c": SPARSE["csr"], "a": ARRAYS["matrix"], "g": torch.Generator()}
    path = save(tmp_path / "c", tree)
    assert [(leaf.path, leaf.dtype) for leaf in read_manifest(path).leaves] == [
        ("s.indices", "int64"),
        ("s.values", "float32"),
        ("c.crow_indices", "int64"),
        ("c.col_indices", "int64"),
        ("c.values", "float32"),
        ("a.values", "float64"),
        ("g.state", "uint8"),
    ]


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_arrays_are_restored(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "c", [ARRAYS[name]])
    assert exact(load(path)) == exact([ARRAYS[name]])
    assert exact(load(path, like=[ARRAYS[name]])) == exact([ARRAYS[name]])


def test_a_read_only_array_is_restored_as_writable(tmp_path: Path) -> None:
    loaded = load(save(tmp_path / "c", read_only(np.arange(3))))
    loaded[0] = 7
    assert loaded.tolist() == [7, 1, 2]


def test_arrays_that_share_memory_share_it_again(tmp_path: Path) -> None:
    array, sparse, generator = np.arange(4.0), EYE.to_sparse(), torch.Generator()
    tree = {
        "array": [array, array[:], torch.from_numpy(array)],
        "sparse": [sparse, sparse, sparse._values()],
        "generator": [generator, generator, torch.Generator()],
    }
    loaded = load(save(tmp_path / "c", tree))
    loaded["array"][0][0] = 5
    assert loaded["array"][1][0] == loaded["array"][2][0] == 5
    assert loaded["sparse"][0] is loaded["sparse"][1]
    assert loaded["sparse"][0]._values().data_ptr() == loaded["sparse"][2].data_ptr()
    assert loaded["generator"][0] is loaded["generator"][1]
    assert loaded["generator"][0] is not loaded["generator"][2]


def test_a_generator_continues_its_stream(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    torch.randn(5, generator=generator)
    path = save(tmp_path / "c", {"rng": generator})
    loaded = load(path)["rng"]
    expected = torch.randn(9, generator=generator)
    assert torch.equal(torch.randn(9, generator=loaded), expected)
    assert loaded.initial_seed() == 3
    assert torch.equal(torch.randn(9, generator=load(path)["rng"]), expected)


def test_a_generator_of_a_missing_device() -> None:
    json, tensors = encode({"rng": torch.Generator()})
    json["rng"]["$generator"]["device"] = "xpu:7"
    with pytest.raises(
        CheckpointDeviceError, match=r"rng is a generator of xpu:7.*this machine lacks"
    ):
        decode(json, [tensor for _, tensor in tensors])


def test_a_subclass_is_instantiated_only_if_allowed(tmp_path: Path) -> None:
    value = Scaled(torch.ones(2, 3, dtype=torch.int8), EYE.to_sparse(), (1, "note"))
    path = save(tmp_path / "c", {"w": value})
    assert [leaf.path for leaf in read_manifest(path).leaves] == [
        *("w.codes", "w.scale.indices", "w.scale.values")
    ]
    with pytest.raises(CheckpointTypeError, match=r"Scaled.*types="):
        load(path)
    for loaded in (load(path, types=(Scaled,)), load(path, like={"w": value})):
        assert exact(loaded) == exact({"w": value})


@pytest.mark.parametrize(
    "value",
    [
        *(Level.LOW, Word.YES, Right.READ, Right.READ | Right.WRITE, Right(0)),
        *(torch.Size([2, 0]), torch.float8_e5m2, torch.qint8, torch.device("cuda", 1)),
        *(np.float32(1), np.float64(2), np.int8(-1), np.bool_(False), np.complex64(1j)),
        *(np.str_("a\0"), np.str_(""), np.bytes_(b"\0"), np.void(b"ab"), np.longdouble(1) / 3),
        *(np.datetime64("NaT", "ns"), np.timedelta64(3, "D"), np.zeros(1, [("a", ">i4")])[0]),
    ],
    ids=repr,
)
def test_small_values_keep_their_types(tmp_path: Path, value: Any) -> None:
    path = save(tmp_path / "c", {"v": value})
    assert exact(load(path, types=TYPES)) == exact({"v": value})
    assert exact(load(path, like={"v": value})) == exact({"v": value})


def test_numbers_of_numpy_can_be_metrics_and_info(tmp_path: Path) -> None:
    loss = np.float32(0.1)
    manifest = read_manifest(save(tmp_path / "c", {}, info=[loss], metrics={"loss": loss}))
    assert exact(manifest.info) == exact([loss])
    assert exact(manifest.metrics) == exact({"loss": float(loss)})  # metrics are plain numbers


REFUSED = {
    "objects": lambda: np.array([{}], dtype=object),
    "records": lambda: np.rec.array([(1,)], dtype=[("a", "i4")]),
    "record dtype": lambda: np.zeros(1, np.dtype((np.record, [("a", "i4")]))),
    "gaps": lambda: np.zeros(1, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "titles": lambda: np.zeros(1, [(("title", "a"), "i4")]),
    "varying strings": lambda: np.array(["a"], np.dtypes.StringDType()),
    "bfloat16 of a package": lambda: np.zeros(1, pytest.importorskip("ml_dtypes").bfloat16),
    "no size": lambda: np.zeros(1, np.dtype([])),
    "masked": lambda: np.ma.array([1]),
    "random": lambda: np.random.default_rng(0),
    "meta sparse": lambda: torch.sparse_coo_tensor((2, 2), device="meta"),
    "blocks of size 0": lambda: no_blocks(),
    "subclass in a subclass": lambda: Scaled(
        torch.ones(2).as_subclass(type("Mine", (torch.Tensor,), {})), torch.ones(1), None
    ),
    "tensor in the context": lambda: Scaled(torch.ones(2), torch.ones(1), torch.ones(1)),
}


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_unsupported_leaves_are_refused_by_path(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnsupportedError, match=r"layers\.0"):
        save(tmp_path / "c", {"layers": [REFUSED[kind]()]})
    assert not any(tmp_path.iterdir())


def test_mismatches_are_reported_by_path(tmp_path: Path) -> None:
    note = Scaled(torch.ones(2, 3, dtype=torch.int8), torch.ones(2), None)
    tree = {
        "kind": SPARSE["csr"],
        "size": SPARSE["coo"],
        "dense": SPARSE["coo"],
        "array": np.zeros(3),
        "bytes": np.zeros(2, ">i4"),
        "rng": torch.Generator(),
        "inner": note,
        "tensor": torch.ones(2),
        "sizes": torch.Size([1]),
    }
    other = Scaled(torch.ones(2, 3, dtype=torch.uint8), torch.ones(3), None)
    like = {
        "kind": SPARSE["csc"],
        "size": torch.eye(3).double().to_sparse(),
        "dense": EYE,
        "array": np.zeros(4, np.int16),
        "bytes": np.zeros(2, "<i4"),
        "rng": np.zeros(1),
        "inner": other,
        "tensor": note,
        "sizes": (1,),
    }
    with pytest.raises(CheckpointMismatchError) as caught:
        load(save(tmp_path / "c", tree), like)
    assert caught.value.problems == [
        "kind: expected a sparse CSC tensor, the checkpoint has a sparse CSR tensor",
        "size: expected shape [3, 3], the checkpoint has [4, 6]",
        "size: expected float64, the checkpoint has float32",
        "dense: expected a tensor, the checkpoint has a sparse COO tensor",
        "array: expected shape [4], the checkpoint has [3]",
        "array: expected <i2, the checkpoint has <f8",
        "bytes: expected <i4, the checkpoint has >i4",
        "rng: expected a NumPy array, the checkpoint has a generator",
        "inner.codes: expected uint8, the checkpoint has int8",
        "inner.scale: expected shape [3], the checkpoint has [2]",
        "tensor: expected a checkpoint_trees.Scaled, the checkpoint has a tensor",
        "sizes: expected a tuple, the checkpoint has a scalar",
    ]


def test_a_generator_fits_any_device_of_its_kind() -> None:
    json, _ = encode(torch.Generator())
    json["$generator"]["device"] = "cuda:1"
    problems = list(mismatches(json, [], torch.Generator(), ("rng",)))
    assert problems == ["rng: expected cpu, the checkpoint has cuda"]
    json["$generator"]["device"] = "cpu:0"
    assert list(mismatches(json, [], torch.Generator())) == []


def test_parts_go_to_the_device_of_the_expected_leaf() -> None:
    tree = {"s": SPARSE["csr"], "w": Scaled(torch.ones(2), torch.ones(1), None), "m": EYE}
    json, _ = encode(tree)
    found = [(i, each.device.type) for i, each in counterparts(json, tree | {"m": EYE.to("meta")})]
    assert found == [(0, "cpu"), (1, "cpu"), (2, "cpu"), (3, "cpu"), (4, "cpu"), (5, "meta")]


LIES: list[tuple[str, Any]] = [
    ("shape", [1, 1]),
    ("shape", [-4, 6]),
    ("shape", [1 << 62, 1 << 62]),
    ("shape", [1 << 70]),
    ("shape", [4.0, 6]),
    ("shape", []),
    ("shape", None),
    ("shape", 3),
    ("dtype", "float64"),
    ("dtype", "object"),
    ("dtype", "|O"),
    ("dtype", "|O8"),
    ("dtype", "|V0"),
    ("dtype", "<U999999999"),
    ("dtype", [["a", "|O"]]),
    ("dtype", [["a", "<f8", [1 << 40, 1 << 40]]]),
    ("dtype", [["a", "<f8", [-1]]]),
    ("dtype", None),
    ("device", "no such device"),
    ("device", 3),
    ("class", "os.system"),
    ("class", []),
    ("class", f"{Level.__module__}.Level"),
    ("stride", [1]),
    ("stride", ["1", 1]),
    ("coalesced", 1),
]


@pytest.mark.parametrize(("field", "lie"), LIES)
def test_a_false_value_in_a_manifest_is_an_error(field: str, lie: Any) -> None:
    # Leaves without elements are left out: another shape of them is valid too.
    leaves = [SPARSE[name] for name in SPARSE if name not in ("empty", "no values")]
    leaves += [ARRAYS["matrix"], ARRAYS["fortran"], torch.Generator()]
    leaves.append(Scaled(torch.ones(2, 3, dtype=torch.int8), torch.ones(2), None))
    tried = 0
    for leaf in leaves:
        json, tensors = encode(leaf)
        scalars = json[next(iter(json))]
        if field in scalars and scalars[field] != lie:
            scalars[field] = lie
            tried += 1
            if isinstance(leaf, Scaled) and field in ("dtype", "stride") and lie != ["1", 1]:
                continue  # a subclass decides these itself
            with pytest.raises((ValueError, CheckpointTypeError)):
                decode(json, [tensor for _, tensor in tensors], types=TYPES)
    assert tried


@pytest.mark.parametrize(
    ("name", "part", "values"),
    [
        ("coo", "indices", [[0, 1, 2, 4]] * 2),
        ("coo", "indices", [[0, 1, 2, -1]] * 2),
        ("coo", "indices", [[0, 2, 1, 3]] * 2),
        ("csr", "col_indices", [0, 1, 2, 6]),
        ("csr", "col_indices", [0, 1, 2, -1]),
        ("csr", "crow_indices", [0, 1, 2, 3, 1 << 40]),
        ("csr", "crow_indices", [0, 1, -2, 3, 4]),
        ("csc", "row_indices", [0, 1, 2, 9]),
        ("bsr", "col_indices", [0, 0, 2]),
        ("bsc", "ccol_indices", [0, 2, 1]),
    ],
)
def test_indices_out_of_range_are_an_error(name: str, part: str, values: Any) -> None:
    json, tensors = encode(SPARSE[name])
    place = json["tensors"][part]["$tensor"]
    lied = [tensor for _, tensor in tensors]
    assert lied[place].shape == torch.tensor(values).shape
    lied[place] = torch.tensor(values)
    with pytest.raises(ValueError, match=r"malformed"):
        decode(json, lied)


def test_blocks_of_size_0_are_an_error() -> None:
    json, tensors = encode(SPARSE["bsr"])
    lied = [tensor for _, tensor in tensors]
    lied[2] = torch.ones(3, 2, 0)
    with pytest.raises(ValueError, match=r"blocks of size 0"):
        decode(json, lied)


def test_scalars_are_not_mistaken_for_arrays_of_any_size() -> None:
    for lie in (["<f4", ""], ["|O", "00" * 8], ["<U999999999", ""], [[["a", "|O"]], "00" * 8], 3):
        with pytest.raises(ValueError, match=r"NumPy"):
            decode({"$numpy": lie}, [])


def test_random_false_values_crash_nothing() -> None:
    """Parts swapped, dropped, of other dtypes and shapes; any answer but a named error is wrong."""
    rng = random.Random(0)
    torch.manual_seed(0)
    leaves = [*SPARSE.values(), ARRAYS["matrix"], ARRAYS["fields"], torch.Generator()]
    made = 0
    for _ in range(2000):
        json, found = encode(rng.choice(leaves))
        json, tensors = copy.deepcopy(json), [tensor for _, tensor in found]
        place = rng.randrange(len(tensors))
        tensors[place] = _other(rng, tensors[place])
        scalars = json[next(iter(json))]
        if "shape" in scalars and rng.random() < 0.3:
            scalars["shape"] = [rng.choice([0, 1, 2, 3, 4, 6, 1 << 61]) for _ in range(3)]
        if rng.random() < 0.1:
            json["tensors"]["values"] = {"$tensor": rng.randrange(len(tensors))}
        try:
            value = decode(json, tensors)
        except (ValueError, FunctrainError):
            continue
        made += 1
        if isinstance(value, torch.Tensor) and value.numel() < 1000 and value.ndim:
            value.to_dense()
    assert 0 < made < 1500


def _other(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    what = rng.randrange(5)
    if what == 0:
        return torch.randint(-2, 9, tensor.shape).to(tensor.dtype)
    if what == 1:
        return tensor.to(rng.choice([torch.int32, torch.float64, torch.uint8, torch.bool]))
    if what == 2:
        return tensor[..., : rng.randrange(4)] if tensor.ndim else tensor[None]
    if what == 3:
        return tensor[None]
    return tensor.reshape(-1)


def test_tensors_without_values_stand_for_dense_ones_only() -> None:
    leaf = Leaf("w", "float32", (4, 6), "", 0, 0, ())
    assert list(mismatches({"$tensor": 0}, [leaf], EYE)) == []
    assert list(mismatches({"$tensor": 0}, [leaf], EYE.to("meta"))) == []
    json, _ = encode(EYE.to_sparse())
    expected = ["(root): expected a tensor, the checkpoint has a sparse COO tensor"]
    assert list(mismatches(json, [leaf, leaf], EYE.to("meta"))) == expected
