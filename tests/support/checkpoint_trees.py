"""Hypothesis strategies: trees of every kind of leaf a checkpoint holds, and their identity.

Tensors come in every dtype with a kernel, in many memory layouts, some twice in one tree, as
objects or as views of the same memory.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from enum import Enum, Flag, IntEnum, StrEnum
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from hypothesis import strategies as st

from functrain import tree
from functrain.testing import strategies

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e8m0fnu),
    *(torch.complex64, torch.complex128, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]
SHAPES = [(), (0,), (1,), (3,), (2, 3), (2, 0, 3), (1, 1), (2, 3, 2, 2), (2, 3, 1, 1)]
ARRAY_DTYPES = [
    *("<f4", ">f4", "|b1", "<i8", "<u2", "<c16", "<f2", "<f8", "|u1", "<f16"),
    *("<M8[ns]", ">M8[5us]", "<m8[D]", "<M8", "|S3", "<U2", ">U1", "|V4"),
    [("a", "<i4"), ("b", ">f8", (2,)), ("c", [("d", "|b1")])],
]


class Point(NamedTuple):
    x: Any
    y: Any


class Color(Enum):
    RED = "red"
    DEEP = 7


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Right(Flag):
    READ = 1
    WRITE = 2


@attrs.frozen(eq=False)
class Record:
    _hidden: Any
    shown: Any


class Scaled(torch.Tensor):
    """Codes and their scale, as in quantization libraries."""

    @staticmethod
    def __new__(cls, codes: Any, scale: Any, note: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(
            cls, codes.shape, dtype=torch.float32, device=codes.device
        )

    def __init__(self, codes: Any, scale: Any, note: Any) -> None:
        self.codes, self.scale, self.note = codes, scale, note

    def __tensor_flatten__(self) -> Any:
        return ["codes", "scale"], {"note": self.note, "was": torch.float32}

    @staticmethod
    def __tensor_unflatten__(inner: Any, context: Any, size: Any, stride: Any) -> Any:
        assert context["was"] is torch.float32
        return Scaled(inner["codes"], inner["scale"], context["note"])

    def __repr__(self) -> str:
        return f"Scaled({self.codes}, {self.scale}, {self.note!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(str(func))


TYPES = (Point, Record, Color, Level, Word, Right, Scaled)


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


def plain_tensors(shape: Any = None, dtype: Any = None) -> st.SearchStrategy[torch.Tensor]:
    shapes = SHAPES if shape is None else [shape]
    dtypes = DTYPES if dtype is None else [dtype]
    return strategies.tensors(dtypes, shapes, layouts=["contiguous"])


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    view = VIEWS[draw(st.sampled_from(sorted(VIEWS)))]
    shown: torch.Tensor = view(draw(plain_tensors()))
    return shown


@st.composite
def sparse_tensors(draw: st.DrawFn) -> torch.Tensor:
    layout = draw(st.sampled_from(["coo", "csr", "csc", "bsr", "bsc"]))
    if layout == "coo":
        count, dense = draw(st.integers(0, 3)), draw(st.sampled_from([(), (2,), (0,)]))
        rows = st.lists(st.integers(0, 3), min_size=count, max_size=count)
        indices = torch.tensor([draw(rows), draw(rows)], dtype=torch.int64)
        values = draw(plain_tensors((count, *dense)))
        made = torch.sparse_coo_tensor(indices, values, (4, 5, *dense), check_invariants=True)
        mergeable = values.dtype in (torch.float32, torch.int64, torch.complex128)
        return made.coalesce() if mergeable and draw(st.booleans()) else made
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.int64, torch.complex64]))
    batch = draw(st.sampled_from([(), (2,)])) if layout in ("csr", "csc") else ()
    value = torch.zeros((*batch, 4, 6), dtype=dtype)
    if draw(st.booleans()):
        value[..., draw(st.integers(0, 3)), draw(st.integers(0, 5))] = draw(st.integers(1, 9))
    block = {"blocksize": (2, 3)} if layout[0] == "b" else {}
    return value.to_sparse(layout=getattr(torch, f"sparse_{layout}"), **block)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(ARRAY_DTYPES)))
    shape = draw(st.sampled_from(SHAPES))
    count = int(np.prod(shape)) * dtype.itemsize
    data = bytearray(draw(st.binary(min_size=count, max_size=count)))
    if dtype.kind == "b":
        data = bytearray(byte % 2 for byte in data)
    if dtype.kind == "U":
        points = np.frombuffer(data, f"{dtype.str[0]}u4")
        points %= 0x110000  # other code points are not characters and cannot be printed
    value = np.frombuffer(data, dtype).reshape(shape) if count else np.empty(shape, dtype)
    view = draw(st.sampled_from(["plain", "fortran", "reversed", "transposed", "read-only"]))
    if view == "fortran":
        return np.asfortranarray(value)
    if view == "reversed" and shape:
        return value[::-1]
    value = value.T if view == "transposed" else value
    value.flags.writeable = view != "read-only"
    return value


def generator(seed: int) -> torch.Generator:
    made = torch.Generator().manual_seed(seed)
    torch.randn(seed % 7, generator=made)  # an odd number of normals leaves one over
    return made


scaled = st.builds(
    Scaled,
    plain_tensors((2, 3), torch.int8),
    plain_tensors((2,)) | sparse_tensors(),
    st.none() | st.integers() | st.tuples(st.text(max_size=2), st.just(torch.Size([2]))),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 66), 1 << 66)
    | st.floats()
    | st.binary(max_size=4)
    | st.text(max_size=4)
    | st.sampled_from([*Color, *Level, *Word, *Right, Right.READ | Right.WRITE])
    | st.sampled_from([torch.Size([]), torch.Size([2, 3]), torch.bfloat16, torch.device("cuda:1")])
    | st.sampled_from([np.float32("nan"), np.float64(-0.0), np.int8(-1), np.bool_(True)])
    | st.sampled_from([np.str_("é\0"), np.bytes_(b""), np.datetime64("NaT"), np.longdouble(2) / 3])
)
keys = st.text(max_size=4) | st.sampled_from(["params", "ema", "$tensor", "a.b", "\ud800"])
composites = sparse_tensors() | arrays() | st.integers(0, 99).map(generator) | scaled


class Pool:
    """Leaves to choose from. (Hypothesis prints the lists it receives, which is slow.)"""

    def __init__(self, tensors: list[Any], composites: list[Any]) -> None:
        self.tensors, self.composites = tensors, composites


@st.composite
def leaves(draw: st.DrawFn, pool: Pool) -> Any:
    """One leaf: tensors of each kind are as likely as scalars."""
    kind = draw(st.sampled_from(["tensor", "view", "composite", "scalar"]))
    if kind == "scalar":
        return draw(scalars)
    group = pool.composites if kind == "composite" else pool.tensors
    leaf = group[draw(st.integers(0, len(group) - 1))]
    return leaf.view_as(leaf) if kind == "view" else leaf


@st.composite
def trees(draw: st.DrawFn) -> Any:
    """A tree in which some leaves occur twice, as objects or as views of the same memory."""
    some = st.lists(tensors(), min_size=1, max_size=4)
    pool = Pool(draw(some), draw(st.lists(composites, min_size=1, max_size=2)))
    inner = st.recursive(
        leaves(pool),
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
    return draw(st.dictionaries(keys, inner, max_size=4) | inner)


def exact(value: Any) -> Any:
    """Return a value that is equal only for trees of the same types, structure, bits and layout."""
    if isinstance(value, torch.Tensor):
        return _exact_tensor(value)
    if isinstance(value, torch.Generator):
        return "generator", str(value.device), value.get_state().tolist()
    if isinstance(value, np.ndarray):
        kept = value.copy(order="K")  # without gaps and reversals, which are not saved
        flags = kept.flags.c_contiguous, kept.flags.f_contiguous
        return "array", value.dtype.descr, value.shape, flags, value.tobytes()
    if isinstance(value, (np.str_, np.bytes_)):
        return type(value), value
    if isinstance(value, np.generic):
        return type(value), value.dtype, value.tobytes()
    if isinstance(value, float):
        return float, struct.pack("<d", value)
    if isinstance(value, torch.Size) or not tree.is_node(value):
        return type(value), value
    return type(value), [(key, exact(child)) for key, child in tree.children(value)]


def _exact_tensor(value: torch.Tensor) -> Any:
    names = {
        torch.sparse_coo: ("_indices", "_values"),
        torch.sparse_csr: ("crow_indices", "col_indices", "values"),
        torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
        torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
        torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
    }.get(value.layout)
    if isinstance(value, Scaled):
        return Scaled, exact(value.codes), exact(value.scale), exact(value.note)
    if names is None:
        laid = torch.empty_like(value, device="meta").stride()
        layout = [step for step, size in zip(laid, value.shape, strict=True) if size > 1]
        return value.dtype, value.shape, layout * bool(value.numel()), tree.to_bytes(value).tolist()
    coalesced = value.layout == torch.sparse_coo and value.is_coalesced()
    parts = [exact(getattr(value.detach(), name)()) for name in names]
    return value.layout, value.shape, value.dtype, coalesced, parts


def alias_pattern(value: Any) -> list[int]:
    """Map each tensor, array or generator to the first one with the same memory."""
    found = [leaf for _, leaf in tree.items(value)]
    names = [name for leaf in found for name in _memory(leaf)]
    return [names.index(name) for name in names]


def _memory(leaf: Any) -> list[Any]:
    if isinstance(leaf, torch.Generator) or (isinstance(leaf, np.ndarray) and leaf.size):
        return [id(leaf)]
    if not isinstance(leaf, torch.Tensor) or leaf.layout != torch.strided:
        return []
    if isinstance(leaf, Scaled):
        return [*_memory(leaf.codes), *_memory(leaf.scale)]
    if not leaf.numel():
        return [object()]
    return [(leaf.data_ptr(), leaf.dtype, leaf.shape, leaf.is_conj(), leaf.is_neg())]
