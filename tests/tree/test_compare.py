"""Bytewise comparison: every kind of difference is found, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from functrain import tree


def only(first: object, second: object) -> tree.Difference:
    (difference,) = tree.diff(first, second)
    assert not tree.equal(first, second)
    assert tree.digest(first) != tree.digest(second)
    return difference


class TestSame:
    @pytest.mark.parametrize(
        "leaf",
        [
            torch.tensor([math.nan, math.inf, -0.0]),
            torch.zeros(0, 3),
            torch.tensor(3),
            torch.tensor([True, False]),
            torch.randn(3, dtype=torch.complex64),
            torch.randn(2, 3).to(torch.bfloat16),
            torch.randn(4).to(torch.float8_e4m3fn),
            math.nan,
            None,
            "text",
            2**80,
        ],
    )
    def test_a_leaf_equals_its_copy(self, leaf: object) -> None:
        copy = leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
        assert tree.diff({"x": leaf}, {"x": copy}) == []
        assert tree.digest({"x": leaf}) == tree.digest({"x": copy})

    @pytest.mark.parametrize(
        "make",
        [
            lambda: complex(math.nan, -0.0),
            lambda: np.float32("nan"),
            lambda: np.complex64(complex(math.nan, 1)),
            lambda: torch.Generator().manual_seed(3),
        ],
    )
    def test_scalars_and_generators_are_compared_by_their_bytes(
        self, make: Callable[[], object]
    ) -> None:
        assert tree.diff({"x": make()}, {"x": make()}) == []
        assert tree.digest({"x": make()}) == tree.digest({"x": make()})

    def test_layout_and_views_do_not_matter(self) -> None:
        x = torch.randn(3, 4)
        assert tree.equal(x.t(), x.t().contiguous())
        assert tree.equal(torch.ones(1).expand(5), torch.ones(5))
        assert tree.equal(torch.arange(4)[::2][:1], torch.zeros(1, dtype=torch.int64))
        assert tree.equal(torch.ones(4)[::2][:0], torch.ones(0))
        z = torch.randn(3, dtype=torch.complex64)
        assert tree.equal(z.conj(), z.conj().resolve_conj())


class TestDifferent:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (complex(0.0, 0.0), complex(0.0, -0.0)),
            (np.float32(0.0), np.float32(-0.0)),
            (torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)),
        ],
    )
    def test_scalars_and_generators_of_other_bytes(self, one: object, other: object) -> None:
        assert only({"x": one}, {"x": other}).kind == "value"

    def test_negative_zero(self) -> None:
        found = only({"w": torch.zeros(3)}, {"w": torch.tensor([0.0, -0.0, 0.0])})
        assert (found.kind, found.count, found.max_abs, found.ulps) == ("value", 1, 0.0, 1)

    def test_nan_payload(self) -> None:
        quiet = torch.tensor([0x7FC00000], dtype=torch.int32).view(torch.float32)
        other = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
        assert only(quiet, other).ulps == 1

    def test_ulps_are_those_of_numpy(self) -> None:
        a = torch.tensor([1.0, -2.0, 1e-30], dtype=torch.float64)
        b = torch.from_numpy(np.nextafter(np.nextafter(a.numpy(), np.inf), np.inf))
        assert only(a, b).ulps == 2

    def test_across_zero(self) -> None:
        tiny = torch.tensor([1e-45])
        assert only(tiny, -tiny).ulps == 3

    @pytest.mark.parametrize(
        ("first", "second", "kind", "path"),
        [
            ({"a": 1}, {"a": 1, "b": 2}, "unexpected", ("b",)),
            ({"a": 1, "b": 2}, {"a": 1}, "missing", ("b",)),
            ([1, 2], (1, 2), "type", ()),
            ({"a": 1}, {"a": 1.0}, "type", ("a",)),
            ({"a": True}, {"a": 1}, "type", ("a",)),
            ({"a": 0.0}, {"a": -0.0}, "value", ("a",)),
            ({"a": [torch.zeros(2)]}, {"a": [torch.zeros(3)]}, "shape", ("a", 0)),
            (torch.zeros(2), torch.zeros(2, dtype=torch.float64), "dtype", ()),
            ({"a": torch.zeros(())}, {"a": 0.0}, "type", ("a",)),
        ],
    )
    def test_kinds(self, first: object, second: object, kind: str, path: tree.Path) -> None:
        found = only(first, second)
        assert (found.kind, found.path) == (kind, path)

    def test_all_are_listed_in_order(self) -> None:
        a = {"x": torch.zeros(2), "y": 1, "z": "same"}
        b = {"x": torch.ones(2), "y": 2, "z": "same"}
        assert [found.path for found in tree.diff(a, b)] == [("x",), ("y",)]


class TestArrays:
    """NumPy arrays, which a state of ``functrain.custom`` may have."""

    def test_equal_means_the_same_bytes(self) -> None:
        array = np.array([math.nan, -0.0, 1.0])
        assert tree.equal({"a": array}, {"a": array.copy()})
        assert tree.equal(np.array(["a", None], dtype=object), np.array(["a", None], dtype=object))
        assert only(array, np.array([math.nan, 0.0, 1.0])).count == 1

    def test_a_value(self) -> None:
        found = only(np.arange(6).reshape(2, 3).T, np.array([[0, 3], [1, 5], [2, 6]]))
        assert (found.kind, found.count, found.index, found.elements) == ("value", 2, (1, 1), 6)
        assert (found.first, found.second) == (4, 5)
        assert str(found) == "(root): value: 2 of 6 elements differ"

    def test_another_form(self) -> None:
        assert only(np.zeros(2), np.zeros(3)).kind == "shape"
        assert only(np.zeros(2), np.zeros(2, dtype=np.float32)).kind == "dtype"
        assert only(np.zeros(2), torch.zeros(2)).kind == "type"


@pytest.mark.parametrize(
    ("convert", "path"),
    [
        (lambda x: x.to_sparse(), ("x", "values")),
        (lambda x: x.to_sparse_csr(), ("x", "values")),
        (lambda x: x.to_sparse_csc(), ("x", "values")),
        (lambda x: x.to_sparse_bsr((1, 1)), ("x", "values")),
        (lambda x: x.to_sparse_bsc((1, 1)), ("x", "values")),
        (lambda x: x.to_mkldnn(), ("x", "values")),
        (lambda x: torch.nested.nested_tensor([x[0], x[1, :1]]), ("x", 1)),
        (lambda x: torch.nested.nested_tensor([x[0], x[1, :1]], layout=torch.jagged), ("x", 1)),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), ("x", "values")),
        (
            lambda x: torch.quantize_per_channel(x, torch.ones(2), torch.zeros(2), 0, torch.quint8),
            ("x", "values"),
        ),
    ],
    ids=["coo", "csr", "csc", "bsr", "bsc", "mkldnn", "nested", "jagged", "scaled", "by_channel"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_other_layouts_are_compared_by_their_parts(
    convert: Callable[[Tensor], Tensor], path: tree.Path
) -> None:
    matrix, other = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    one = {"x": convert(matrix)}
    assert tree.diff(one, {"x": convert(matrix)}) == []
    assert tree.digest(one) == tree.digest({"x": convert(matrix)})
    found = only(one, {"x": convert(other)})
    assert (found.path, found.kind, found.count) == (path, "value", 1)
    assert only(one, {"x": matrix}).kind in ("type", "dtype")


def test_nested_tensors_of_two_layouts_differ() -> None:
    pieces = [torch.ones(2), torch.ones(3)]
    one, other = (
        torch.nested.nested_tensor(pieces, layout=each) for each in (torch.strided, torch.jagged)
    )
    found = only({"x": one}, {"x": other})
    assert "expected a nested tensor, got a jagged tensor" in str(found)


def test_scales_indices_and_shapes_of_other_layouts_are_compared() -> None:
    ones = torch.ones(2)
    scaled = [torch.quantize_per_tensor(ones * one, one, 0, torch.qint8) for one in (1.0, 2.0)]
    assert only(*scaled).path == ("scale",)
    dense = [torch.tensor(each) for each in ([1.0, 0.0], [0.0, 1.0], [1.0, 0.0, 0.0])]
    sparse = [each.to_sparse() for each in dense]
    assert only(sparse[0], sparse[1]).path == ("indices",)
    assert only(sparse[0], sparse[2]).kind == "shape"
    nested = [torch.nested.as_nested_tensor([ones[:one], ones]) for one in (1, 2)]
    assert only(*nested).path == (0,)


@pytest.mark.row(54)
class TestElement:
    def test_the_first_element_that_differs_and_both_values(self) -> None:
        first = torch.arange(24.0).reshape(2, 3, 4)
        second = first.clone()
        second[1, 0, 2], second[1, 2, 3] = -1.0, math.nan
        (found,) = tree.diff({"w": first}, {"w": second})
        assert (found.index, found.first, found.second, found.count) == ((1, 0, 2), 14.0, -1.0, 2)

    def test_in_logical_order_also_of_views(self) -> None:
        first = torch.zeros(3, 4).t()
        second = torch.zeros(4, 3)
        second[0, 2], second[3, 0] = 1.0, 2.0
        (found,) = tree.diff(first, second)
        assert (found.index, found.second) == ((0, 2), 1.0)

    def test_beyond_the_first_million_elements(self) -> None:
        first = torch.zeros((1 << 20) + 5, dtype=torch.int8)
        second = first.clone()
        second[-2] = 1
        (found,) = tree.diff(first, second)
        assert (found.index, found.first, found.second) == (((1 << 20) + 3,), 0, 1)

    @pytest.mark.parametrize(
        "dtype",
        [torch.bool, torch.uint16, torch.bfloat16, torch.float8_e5m2, torch.complex64, torch.bits8],
        ids=str,
    )
    def test_of_any_dtype(self, dtype: torch.dtype) -> None:
        size = torch.empty(0, dtype=dtype).element_size()
        pair = [torch.zeros(3 * size, dtype=torch.uint8) for _ in range(2)]
        pair[1][size] = 1
        (found,) = tree.diff(*(each.view(dtype) for each in pair))
        assert found.index == (1,)
        assert found.first != found.second

    def test_of_scalars(self) -> None:
        (found,) = tree.diff({"n": 3}, {"n": 4})
        assert (found.index, found.first, found.second, found.elements) == ((), 3, 4, None)

    def test_elements_of_a_tensor(self) -> None:
        (found,) = tree.diff(torch.zeros(2, 3), torch.ones(2, 3))
        assert (found.elements, found.count) == (6, 6)
        (single,) = tree.diff(torch.tensor(1), torch.tensor(2))
        assert (single.elements, single.index) == (1, ())
        (form,) = tree.diff(torch.zeros(2), torch.zeros(3))
        assert form.elements is None

    def test_none_where_no_values_are_compared(self) -> None:
        (found,) = tree.diff({"w": torch.zeros(2)}, {"w": torch.zeros(3)})
        assert found.index is None


class TestList:
    def test_it_is_a_list(self) -> None:
        assert tree.diff({"a": 1}, {"a": 1}) == []
        found = tree.diff({"a": 1, "b": 2}, {"a": 2, "b": 3})
        assert list(found) == found
        assert isinstance(found[:1], tree.Differences)
        assert isinstance(found[0], tree.Difference)

    def test_a_line_each_and_the_rest_counted(self) -> None:
        found = tree.diff({str(n): n for n in range(30)}, {str(n): -1 for n in range(30)})
        lines = repr(found).splitlines()
        assert lines[0] == "30 differences"
        assert lines[1] == "  0: value: expected 0, got -1"
        assert lines[-1] == "  ... 10 more"
        assert len(lines) == 22


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=16).map(lambda data: torch.tensor(list(data), dtype=torch.uint8)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(TREES, TREES)
def test_digests_agree_with_differences(first: object, second: object) -> None:
    same = tree.diff(first, second) == []
    assert same == tree.equal(first, second) == (tree.digest(first) == tree.digest(second))


@given(TREES)
def test_a_tree_rebuilt_is_the_same(value: object) -> None:
    assert tree.equal(value, tree.map(lambda leaf: leaf, value))
    assert tree.equal(list(tree.flatten(value).values()), [leaf for _, leaf in tree.items(value)])


def test_the_unit_of_a_numpy_scalar_counts() -> None:
    second, day = np.datetime64(1, "s"), np.datetime64(1, "D")
    assert tree.equal(second, np.datetime64(1, "s"))
    assert not tree.equal(second, day)
    assert tree.diff(second, day)
