"""The distribution of the noise, and what it depends on."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from late import Late
from torch import Tensor

from functrain.optim import SGD
from functrain.optim.wrappers import AddNoise
from functrain.optim.wrappers.add_noise import normal

stats = Late("scipy.stats")

pytestmark = pytest.mark.row(13)

SIZE = 200_000
SIGMAS = 4.5  # a right generator fails one of the comparisons here in 100 000


@functools.cache
def drawn(key: int, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(torch.tensor(key), torch.tensor(count), SIZE, dtype)


STREAMS = [(0, 1), (0, 2), (1, 1), (2**63 - 1, 1), (2**32, 1), (1 << 31, 7), (0, 100_000)]
each_stream = pytest.mark.parametrize(("key", "count"), STREAMS)


@each_stream
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_stream_is_normal(key: int, count: int, dtype: torch.dtype) -> None:
    numbers = drawn(key, count, dtype)
    assert numbers.dtype == dtype
    values = numbers.double()
    assert abs(values.mean()) < SIGMAS / SIZE**0.5
    assert abs(values.var() - 1) < SIGMAS * (2 / SIZE) ** 0.5
    assert abs((values**3).mean()) < SIGMAS * (15 / SIZE) ** 0.5
    assert abs((values**4).mean() - 3) < SIGMAS * (96 / SIZE) ** 0.5
    for half in (values[0::2], values[1::2], values[: SIZE // 2]):
        assert stats.kstest(half.numpy(), "norm").pvalue > 1e-5
    assert 4 < values.abs().max() < 6.8


def correlation(left: Tensor, right: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1]) * len(left) ** 0.5


@pytest.mark.parametrize("power", [1, 2])
def test_neighbours_are_independent(power: int) -> None:
    for key, count in STREAMS:
        numbers = drawn(key, count) ** power
        for lag in (1, 2, 3, 4, 8, 16, 64, 256, 1024, 32_768):
            assert abs(correlation(numbers[lag:], numbers[:-lag])) < SIGMAS, (key, count, lag)


@pytest.mark.parametrize("power", [1, 2])
def test_streams_are_independent(power: int) -> None:
    numbers = [drawn(key, count) ** power for key, count in STREAMS]
    for index, left in enumerate(numbers):
        for right in numbers[:index]:
            assert abs(correlation(left, right)) < SIGMAS


def test_streams_do_not_share_numbers_in_another_order() -> None:
    # Among 2e5 of 2**32 values of each of two streams about 5 pairs meet by chance.
    radii = [(drawn(*stream)[0::2] ** 2 + drawn(*stream)[1::2] ** 2).numpy() for stream in STREAMS]
    for index, left in enumerate(radii):
        for right in radii[:index]:
            shared = torch.isin(torch.tensor(left), torch.tensor(right)).sum()
            assert shared < 20


def test_successive_counts_give_one_element_a_normal_sequence() -> None:
    counts = torch.arange(1, 20_001)
    sequence = torch.func.vmap(lambda count: normal(torch.tensor(5), count, 3, torch.float64))
    values = sequence(counts)[:, 2]
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-5
    assert abs(correlation(values[1:], values[:-1])) < SIGMAS


def test_a_number_depends_on_its_index_only() -> None:
    torch.testing.assert_close(
        normal(torch.tensor(3), torch.tensor(1), 1001, torch.float64),
        normal(torch.tensor(3), torch.tensor(1), 100_000, torch.float64)[:1001],
        rtol=1e-14,
        atol=1e-14,
    )


def noise_of(optimizer: AddNoise, params: dict[str, Tensor], updates: int) -> list[Any]:
    """Return the noise added to gradients of zero, update by update."""
    state, found = optimizer.init(params), []
    for _ in range(updates):
        zeros = {path: torch.zeros_like(leaf) for path, leaf in params.items()}
        new, state = optimizer.update(zeros, state, params, 1.0)
        found.append({path: params[path] - leaf for path, leaf in new.items()})
    return found


def test_the_variance_falls_as_in_the_paper() -> None:
    params = {"w": torch.zeros(100, 1000, dtype=torch.float64)}
    found = noise_of(AddNoise(SGD(), eta=0.3, gamma=0.7), params, 4)
    for t, noise in enumerate(found):
        expected = 0.3 / (1 + t) ** 0.7
        assert abs(noise["w"].var() / expected - 1) < SIGMAS * (2 / 100_000) ** 0.5


def test_leaves_and_seeds_and_updates_differ_and_the_order_of_leaves_does_not_matter() -> None:
    leaf = torch.zeros(50, 2)
    first, second = noise_of(AddNoise(SGD(), 1.0), {"a": leaf, "b": leaf}, 2)
    turned = noise_of(AddNoise(SGD(), 1.0), {"b": leaf, "a": leaf}, 1)[0]
    other = noise_of(AddNoise(SGD(), 1.0, seed=1), {"a": leaf, "b": leaf}, 1)[0]
    assert torch.equal(first["a"], turned["a"])
    assert torch.equal(first["b"], turned["b"])
    different = [first["a"], first["b"], second["a"], second["b"], other["a"], other["b"]]
    for index, noise in enumerate(different):
        assert noise.abs().min() > 0
        for earlier in different[:index]:
            assert not torch.isin(noise.abs(), earlier.abs()).any()


def test_complex_noise_has_the_variance_in_both_parts_together() -> None:
    (noise,) = noise_of(AddNoise(SGD(), 0.5), {"w": torch.zeros(SIZE, dtype=torch.complex64)}, 1)
    parts = torch.view_as_real(noise["w"])
    bound = SIGMAS * (2 / SIZE) ** 0.5
    for part in (parts[:, 0], parts[:, 1]):
        assert abs(part.var() / 0.25 - 1) < bound


def test_eta_and_gamma_may_be_tensors_under_vmap() -> None:
    params = {"w": torch.zeros(5), "s": torch.zeros(())}

    def member(eta: Any, gamma: Any) -> dict[str, Tensor]:
        return noise_of(AddNoise(SGD(), eta, gamma), params, 3)[2]

    etas, gammas = torch.tensor([0.1, 0.4]), torch.tensor([0.0, 1.0])
    found = torch.func.vmap(member)(etas, gammas)
    for index in range(2):
        expected = member(etas[index].item(), gammas[index].item())
        for path, leaf in expected.items():
            assert found[path].dtype == torch.float32
            torch.testing.assert_close(found[path][index], leaf, rtol=1e-6, atol=0)


def test_without_eta_nothing_is_added() -> None:
    (noise,) = noise_of(AddNoise(SGD(), 0.0), {"w": torch.zeros(9)}, 1)
    assert not noise["w"].any()


def test_the_first_numbers_are_these_for_ever() -> None:
    found = normal(torch.tensor(2024), torch.tensor(1), 4, torch.float64)
    expected = reference(2024, 1, 4)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0
    )


def reference(key: int, count: int, size: int) -> list[float]:
    """The same written out in Python's integers, in 32-bit arithmetic."""
    low, high = key % 2**32, key >> 32
    first = mixed(mixed(count, low), high)
    second, third = mixed(first, low), mixed(first, low ^ 0xFFFFFFFF)
    found = []
    for pair in range(size // 2):
        hashed = mixed(pair, first)
        radius = math.sqrt(-2 * math.log((mixed(hashed, second) + 0.5) / 2**32))
        angle = 2 * math.pi * mixed(hashed, third) / 2**32
        found += [radius * math.cos(angle), radius * math.sin(angle)]
    return found


def mixed(number: int, key: int) -> int:
    number ^= key
    number ^= number >> 16
    number = number * 0x21F0AAAD % 2**32
    number ^= number >> 15
    number = number * 0x735A2D97 % 2**32
    return number ^ number >> 15
