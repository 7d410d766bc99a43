"""The tree over the parts of a step: its sums, and who forms which of them."""

from __future__ import annotations

import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from functrain.core.accumulation import add_node, nodes
from functrain.data.batch_parts import share
from functrain.distributed.sums import tree_sum

PARTS = st.integers(1, 16)
WORLDS = PARTS.flatmap(lambda parts: st.tuples(st.just(parts), st.integers(1, 20)))


@given(WORLDS)
def test_shares_are_the_parts_one_after_another(world: tuple[int, int]) -> None:
    parts, ranks = world
    shares = [share(parts, rank, ranks) for rank in range(ranks)]
    assert [part for start, stop in shares for part in range(start, stop)] == list(range(parts))
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 1


@given(WORLDS, st.data())
def test_the_sum_has_the_same_bits_for_any_number_of_ranks(
    world: tuple[int, int], data: st.DataObject
) -> None:
    parts, ranks = world
    numbers = st.floats(-1e10, 1e10, allow_nan=False)
    terms = data.draw(st.lists(numbers, min_size=parts, max_size=parts))
    alone = tree_sum(parts, {(i, i + 1): x for i, x in enumerate(terms)}, operator.add)

    def sum_of(node: tuple[int, int]) -> float:
        def add_part(number: int, total: dict[str, Tensor]) -> None:
            term = torch.tensor(terms[number], dtype=torch.float64)
            total["sum"] = total["sum"] + term if total else term

        total: dict[str, Tensor] = {}
        add_node(node, total, add_part)
        return total["sum"].item()

    shares = [share(parts, rank, ranks) for rank in range(ranks)]
    held = [node for start, stop in shares for node in nodes(parts, start, stop)]
    assert tree_sum(parts, {node: sum_of(node) for node in held}, operator.add) == alone


def test_the_order_is_that_of_a_binary_tree() -> None:
    letters = {(i, i + 1): letter for i, letter in enumerate("abcde")}
    shown = tree_sum(5, letters, lambda x, y: f"({x}{y})")
    assert shown == "((ab)(c(de)))"


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_a_rank_without_parts_has_no_sums(parts: int) -> None:
    assert nodes(parts, 1, 1) == []
