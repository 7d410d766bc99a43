"""Hashes of trees: equal trees have equal hashes, and different ones differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import xxhash

from functrain.tree.hashing import merkle


def test_a_leaf_is_hashed_with_dtype_and_shape() -> None:
    leaf = torch.randn(3, 4)
    hashed = f"{leaf.dtype}{tuple(leaf.shape)};".encode() + leaf.numpy().tobytes()
    assert merkle(leaf).digest == xxhash.xxh3_128(hashed).digest()
    assert merkle(leaf).digest != merkle(leaf.reshape(12)).digest
    assert merkle(leaf).digest != merkle(leaf.view(torch.int32)).digest


def test_every_layout_of_the_same_values_has_the_same_hash() -> None:
    image = torch.randn(2, 3, 4, 5)
    turned = image.to(memory_format=torch.channels_last)
    assert merkle(image) == merkle(turned) == merkle(image.transpose(0, 1).transpose(0, 1))
    numbers = torch.randn(4, dtype=torch.complex64)
    assert merkle(numbers.conj()) == merkle(numbers.conj().resolve_conj())


def test_names_matter_but_their_order_does_not() -> None:
    assert merkle({"a": 1, "b": 2}).digest == merkle({"b": 2, "a": 1}).digest
    assert merkle({"a": 1, "b": 2}).digest != merkle({"a": 2, "b": 1}).digest
    assert merkle([1, 2]).digest != merkle((1, 2)).digest
    assert merkle({"a": {}}).digest != merkle({"a": []}).digest


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), ("1", 1), (None, 0)])
def test_scalars_that_python_calls_equal_differ(one: Any, other: Any) -> None:
    assert merkle(one).digest != merkle(other).digest
    assert merkle(one).digest == merkle(one).digest


def test_arrays_are_hashed_and_objects_are_not() -> None:
    import numpy as np

    assert merkle(np.arange(3)).digest != merkle(np.arange(1, 4)).digest
    assert merkle(object()).digest == merkle(object()).digest
