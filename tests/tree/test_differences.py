"""The text of a difference, and the display of a list of them."""

from __future__ import annotations

import math

import pytest
import torch

from functrain import tree


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
