"""Statistics and distances of elements, for every dtype there is."""

from __future__ import annotations

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.tree import elements
from functrain.tree.elements import Distance, Statistics, distance, statistics

FLOATS = [dtype for dtype in BY_NAME.values() if dtype.is_floating_point]
KNOWN = [dtype for dtype in FLOATS if not str(dtype).startswith("torch.float4")]


@pytest.mark.parametrize("dtype", BY_NAME.values(), ids=str)
def test_any_bytes_of_any_dtype_have_statistics_and_a_distance(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = (2, 64 * dtype.itemsize)
    data = torch.randint(0, 2 if dtype is torch.bool else 256, sizes, generator=generator)
    data[1, 64:] = data[0, 64:]
    first, second = data.to(torch.uint8).view(dtype)
    found = distance(first, second)
    same = data.view(2, 64, dtype.itemsize).unbind()
    assert found.count == int((same[0] != same[1]).any(dim=1).sum())
    assert distance(first, first) == Distance(0, *_none_of(found))
    own = statistics(first)
    assert own is None or own.nan + own.infinite <= 64


def _none_of(found: Distance) -> tuple[float | None, int | None]:
    return (None if found.max_abs is None else 0.0, None if found.ulps is None else 0)


def test_statistics_are_of_the_finite_elements() -> None:
    values = torch.tensor([1.0, 2.0, 6.0, math.nan, math.inf, -math.inf])
    assert statistics(values) == Statistics(1.0, 6.0, 3.0, math.sqrt(14 / 3), 1, 2)
    assert statistics(values[3:]) == Statistics(None, None, None, None, 1, 2)
    assert statistics(values[:0]) == Statistics(None, None, None, None, 0, 0)


def test_statistics_of_complex_elements_are_those_of_the_magnitude() -> None:
    values = torch.tensor([3 + 4j, complex(math.inf, math.nan), complex(math.inf, 0)])
    assert statistics(values) == Statistics(5.0, 5.0, 5.0, 0.0, 1, 1)


def test_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(1000, dtype=torch.float64) + 1e6
    monkeypatch.setattr(elements, "_AT_ONCE", 7)
    found = statistics(values)
    assert found is not None
    assert found.mean == pytest.approx(float(values.mean()), rel=1e-14)
    assert found.std == pytest.approx(float(values.std(correction=0)), rel=1e-9)
    other = values.clone()
    other[[3, 500, 999]] += 1.0
    assert distance(values, other).count == 3


@pytest.mark.parametrize("dtype", KNOWN, ids=str)
def test_neighbours_are_one_ulp_apart(dtype: torch.dtype) -> None:
    one = torch.ones(3).to(dtype)
    up = (one.view(_integers(dtype)) + 1).view(dtype)
    assert distance(one, up).ulps == 1
    assert distance(one, up).max_abs == float((up.double() - one.double())[0])


def _integers(dtype: torch.dtype) -> torch.dtype:
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]


@settings(max_examples=200, deadline=None)
@given(st.floats(), st.floats())
def test_ulps_of_float64_are_exact_over_the_whole_range(one: float, other: float) -> None:
    def place(value: float) -> int:
        bits = struct.unpack("<q", struct.pack("<d", value))[0]
        return -(1 << 63) - bits - 1 if bits < 0 else bits

    first, second = (torch.tensor([value], dtype=torch.float64) for value in (one, other))
    expected = abs(place(first.item()) - place(second.item()))
    assert distance(first, second).ulps == expected or math.isnan(one) or math.isnan(other)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_integers_beyond_float_precision_are_distinguished(dtype: torch.dtype) -> None:
    first = torch.tensor([1 << 62, 0], dtype=torch.int64).view(dtype)
    second = torch.tensor([(1 << 62) + 1, 0], dtype=torch.int64).view(dtype)
    assert distance(first, second) == Distance(1, 1, None)


def test_the_ends_of_uint64_are_as_far_apart_as_can_be() -> None:
    ends = torch.tensor([-1], dtype=torch.int64).view(torch.uint64)
    zero = torch.zeros(1, dtype=torch.int64).view(torch.uint64)
    assert distance(ends, zero).max_abs == (1 << 64) - 1


def test_a_nan_against_a_number_is_a_nan_apart() -> None:
    found = distance(torch.tensor([math.nan, 1.0]), torch.tensor([1.0, 3.0]))
    assert (found.count, math.isnan(found.max_abs or 0.0)) == (2, True)
