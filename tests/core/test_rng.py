"""Streams are functions of their path; scopes give the global generators back bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.core.global_generators import sample_scope
from functrain.core.rng import Rng, derive, scoped


def snapshot() -> tuple[bytes, Any, bytes]:
    """All global generators as bytes and plain values."""
    numpy_state = np.random.get_state(legacy=False)
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        repr(numpy_state).encode() + numpy_state["state"]["key"].tobytes(),
    )


def test_derive_is_stable_for_ever() -> None:
    assert derive(0) == 2561979861487051354
    assert derive(0, "sample", 3, 12345) == 62183989441333285
    assert derive(-1, "é\u0378", 2**70) == 3086341155032465008


@given(st.integers(), st.lists(st.integers() | st.text()))
def test_derive_gives_a_seed_that_generators_accept(root: int, path: list[int | str]) -> None:
    assert 0 <= derive(root, *path) < 2**63
    assert derive(root, *path) == derive(root % 2**64, *path)


def test_different_paths_have_different_streams() -> None:
    paths = [(), ("",), ("a", "b"), ("ab",), ("a,b",), ("a', 'b",), (1,), ("1",), (1, 2), (12,)]
    seeds = {derive(7, *path) for path in paths}
    assert len(seeds) == len(set(paths))


@pytest.mark.parametrize("part", [True, 1.0, None, torch.tensor(1), np.int64(1)])
def test_a_path_of_other_things_is_refused(part: Any) -> None:
    with pytest.raises(TypeError, match="named by ints and strings"):
        derive(0, part)


def test_rng_names_streams() -> None:
    assert Rng(5).stream("dropout", 1) == derive(5, "dropout", 1)


def use_scoped() -> None:
    with scoped(3):
        torch.rand(5)
        with scoped(4, torch.device("cpu")):
            torch.randn(3)
            raise KeyError


def use_sample_scope() -> None:
    with sample_scope() as scope:
        scope.seed(3)
        torch.rand(5), random.random(), np.random.rand(), np.random.randn()
        with sample_scope() as inner:
            inner.seed(4)
            random.gauss(0, 1), np.random.randn()
        raise KeyError


@pytest.mark.parametrize("use", [use_scoped, use_sample_scope])
def test_a_scope_restores_after_nesting_and_exceptions(use: Callable[[], None]) -> None:
    torch.randn(3), random.gauss(0, 1), np.random.randn()  # leave half of a pair behind
    before = snapshot()
    with pytest.raises(KeyError):
        use()
    assert snapshot() == before


def test_nested_scopes_continue_the_outer_stream() -> None:
    with scoped(1):
        whole = torch.rand(4)
    with scoped(1):
        first = torch.rand(2)
        with scoped(2):
            torch.rand(9)
        second = torch.rand(2)
    assert torch.equal(torch.cat([first, second]), whole)


def test_a_sample_scope_seeds_every_generator() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.rand())

    with sample_scope() as scope:
        scope.seed(2**62 + 5)
        first = draw()
        scope.seed(2**62 + 5)
        assert draw() == first
        assert draw() != first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_device_generator_is_scoped_too() -> None:
    device = torch.device("cuda")
    before = torch.cuda.get_rng_state()
    with scoped(3, device):
        first = torch.rand(4, device=device)
    with sample_scope() as scope:
        scope.seed(3)
        assert torch.equal(torch.rand(4, device=device), first)
    assert torch.equal(torch.cuda.get_rng_state(), before)
