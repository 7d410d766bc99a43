"""Trees of DTensors compare, hash, copy and print as the plain trees that they stand for."""

from __future__ import annotations

from typing import Any

import pytest
import ranks
import torch

import functrain as ft
from functrain import tree
from functrain.distributed import World, current
from functrain.tree.placed import is_placed, local, whole

SIZES = [1, 2, 3]


def trees() -> tuple[World, dict[str, Any], dict[str, Any]]:
    import placed_trees

    world = current()
    return world, placed_trees.plain(), placed_trees.placed(world)


def wholes() -> tuple[bool, list[str]]:
    _, plain, placed = trees()
    gathered = tree.map(lambda leaf: whole(leaf) if is_placed(leaf) else leaf, placed)
    types = {type(leaf) for _, leaf in tree.items(gathered) if isinstance(leaf, torch.Tensor)}
    return types == {torch.Tensor}, [str(found) for found in tree.diff(plain, gathered)]


@pytest.mark.parametrize("n", SIZES)
def test_whole_has_every_byte_on_every_rank(n: int) -> None:
    assert ranks.run(wholes, n) == [(True, [])] * n


def digests() -> tuple[str, str]:
    _, plain, placed = trees()
    return tree.digest(plain), tree.digest(placed)


@pytest.mark.parametrize("n", SIZES)
def test_the_digest_is_that_of_the_plain_tree(n: int) -> None:
    found = {digest for pair in ranks.run(digests, n) for digest in pair}
    assert len(found) == 1


def differences() -> list[Any]:
    world, plain, placed = trees()
    _, _, changed = trees()
    if world.rank == world.size - 1:
        local(changed["weight"])[-1, 2] += 1.0
        local(changed["moments"][0])[4, 1] = 0.0
    found: list[Any] = [list(tree.diff(*pair)) for pair in [(placed, placed), (plain, placed)]]
    found += [list(tree.diff(placed, plain)), tree.equal(plain, placed), tree.equal(placed, plain)]
    for other in (plain, placed):
        found += [[(d.path, d.count, d.index) for d in tree.diff(other, changed)]]
        found += [[(d.path, d.count, d.index) for d in tree.diff(changed, other)]]
        found += [tree.equal(other, changed), tree.digest(other) == tree.digest(changed)]
    return found


@pytest.mark.parametrize("n", SIZES)
def test_differences_are_found_on_every_rank(n: int) -> None:
    changed = [(("weight",), 1, (6, 2)), (("moments", 0), 1, (4, 1))]
    expected = [[], [], [], True, True, *[changed, changed, False, False] * 2]
    assert ranks.run(differences, n) == [expected] * n


def one_rank_differs() -> tuple[bool, bool]:
    world, plain, placed = trees()
    if world.rank == 1:  # of a leaf before one that is gathered
        plain["weight"] = plain["weight"] + 1
    first = {"drift": plain["weight"], **placed}
    other = {"drift": trees()[1]["weight"], **placed}
    return tree.equal(first, other), tree.equal(placed, placed)


def test_equal_does_not_hang_if_one_rank_differs() -> None:
    assert ranks.run(one_rank_differs, 2) == [(True, True), (False, True)]


def copied() -> list[bool]:
    _, plain, placed = trees()
    theirs = ft.copy(placed)
    same = tree.equal(placed, theirs)
    kinds = [is_placed(a) == is_placed(b) for (_, a), (_, b) in leaves(placed, theirs)]
    for _, leaf in tree.items(theirs):
        if is_placed(leaf):
            local(leaf).zero_()
    return [same, all(kinds), tree.equal(plain, placed)]


def leaves(first: Any, second: Any) -> Any:
    return zip(tree.items(first), tree.items(second), strict=True)


@pytest.mark.parametrize("n", SIZES)
def test_a_copy_is_placed_alike_and_shares_no_memory(n: int) -> None:
    assert ranks.run(copied, n) == [[True, True, True]] * n


def printed() -> tuple[str, str, list[str], list[str]]:
    _, plain, placed = trees()
    paths = [[tree.path_string(path) for path, _ in tree.items(each)] for each in (plain, placed)]
    return tree.text(placed), tree.totals(placed), *paths


def test_text_shows_the_whole_shape_and_the_placement() -> None:
    for text, totals, plain, placed in ranks.run(printed, 3):
        assert "weight    f32[7,3] cut over 3 ranks" in text
        assert "0  f32[7,3] on rank 2" in text
        assert "1  f32[3,7]\n" in text
        assert "bias      f32[3]\n" in text
        assert "9 tensors" in totals
        assert plain == placed


def scalars() -> str:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    mesh = DeviceMesh("cpu", list(range(current().size)))
    return tree.summary(distribute_tensor(torch.tensor(2.0), mesh, [Replicate()]))


def test_printing_a_placed_scalar_reads_no_value() -> None:
    assert ranks.run(scalars, 2) == ["f32[]"] * 2
