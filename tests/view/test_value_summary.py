"""Summaries of values equal those of NumPy, from a bounded sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from functrain.view.value_summary import ValueSummary, histogram, in_words, value_summaries


def summary(tensor: Tensor) -> ValueSummary:
    return value_summaries([tensor])[id(tensor)]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.row(2)
class TestValueSummary:
    def test_counts_and_moments_equal_those_of_numpy(self) -> None:
        values = normal(50, 60)
        found, numbers = summary(values), values.double().numpy().ravel()
        assert found.counts == tuple(np.histogram(numbers, bins=24)[0])
        assert (found.low, found.high) == (numbers.min(), numbers.max())
        assert found.mean == pytest.approx(numbers.mean())
        assert found.std == pytest.approx(numbers.std())

    def test_the_sample_of_a_large_tensor_comes_from_all_over_it(self) -> None:
        # Every 512th value would fall into one column.
        values = torch.arange(512.0).repeat(4096, 1)
        found = summary(values)
        assert sum(found.counts) == found.looked_at == 4096
        assert found.mean == pytest.approx(255.5, abs=10)
        assert min(found.counts) > 100

    def test_one_nan_among_a_million_is_found(self) -> None:
        values = normal(1000, 1000)
        values[123, 456], values[3, 4], values[5, 6] = math.nan, math.inf, -math.inf
        found = summary(values)
        assert (found.nan, found.infinite, found.searched) == (1, 2, True)

    def test_a_sum_that_overflows_is_no_infinity(self) -> None:
        values = torch.full((5000,), 6e4, dtype=torch.float16)
        assert summary(values).infinite == 0

    def test_a_larger_tensor_is_only_sampled(self) -> None:
        found = summary(torch.zeros(1).expand(1 << 23))  # no memory behind it
        assert (found.looked_at, found.searched) == (4096, False)

    def test_a_view_is_read_in_place(self) -> None:
        whole = normal(300, 200)
        turned = whole.t()[::2]
        numbers = turned.double().numpy()
        found = summary(turned)
        assert found.low is not None
        assert found.high is not None
        assert numbers.min() <= found.low < -2
        assert 2 < found.high <= numbers.max()

    @pytest.mark.parametrize(
        "dtype",
        [
            torch.float16,
            torch.bfloat16,
            torch.float64,
            torch.float8_e4m3fn,
            torch.complex64,
            torch.int8,
            torch.int64,
            torch.uint16,
            torch.bool,
        ],
        ids=str,
    )
    @pytest.mark.parametrize("size", [2, 10_000])
    def test_any_dtype(self, dtype: torch.dtype, size: int) -> None:
        values = (torch.arange(size) % 2).to(dtype)
        found = summary(values)
        assert (found.low, found.high) == (0.0, 1.0)
        assert found.mean == pytest.approx(0.5, abs=0.05)

    @pytest.mark.parametrize("scale", [1e-310, 1e-40, 1e300, 1.7e308])
    def test_any_magnitude(self, scale: float) -> None:
        values = torch.tensor([-1.0, 0.0, 0.5, 1.0], dtype=torch.float64) * scale
        found = summary(values)
        assert sum(found.counts) == 4
        assert math.isfinite(found.std)
        assert "<svg" in histogram(found, 4)
        assert "inf" not in in_words(found, 4)

    def test_tensors_without_readable_values_are_skipped(self) -> None:
        odd = [
            torch.empty(3, device="meta"),
            torch.empty(0),
            torch.tensor(1.0),
            torch.eye(3).to_sparse(),
            torch.zeros(4, dtype=torch.uint8).view(torch.bits8),
        ]
        assert value_summaries(odd) == {}
        seen = []
        torch.func.vmap(lambda row: seen.append(value_summaries([row])) or row)(torch.ones(2, 3))
        assert seen == [{}]

    def test_nothing_is_changed_or_drawn_from_torchs_generator(self) -> None:
        values = normal(100, 100).requires_grad_()
        before, version = torch.get_rng_state(), values._version
        summary(values)
        assert torch.equal(before, torch.get_rng_state())
        assert values._version == version
        assert values.grad is None

    def test_nothing_finite(self) -> None:
        found = summary(torch.tensor([math.nan, math.inf]))
        assert (found.low, found.counts, found.nan, found.infinite) == (None, (), 1, 1)
