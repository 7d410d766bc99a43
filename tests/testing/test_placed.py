"""Checks of purity look at the local parts and at the whole values of DTensors."""

from __future__ import annotations

from typing import Any

import ranks

from functrain.distributed import current
from functrain.testing.observed_calls import extents, overlaps
from functrain.testing.snapshots import changes, snapshot
from functrain.tree.placed import local


def shared() -> list[list[Any]]:
    import placed_trees

    world = current()
    first, second = placed_trees.placed(world), placed_trees.placed(world)
    owner, weight = world.rank == world.size - 1, first["weight"]
    views = {"view": local(weight)[:1], "moment": local(first["moments"][0])}
    found = overlaps(extents(first, "first"), extents(views, "views"))
    return [overlaps(extents(first, "first"), extents(second, "second")), found, [owner]]


def test_only_local_memory_is_shared_memory() -> None:
    view = ("first['weight']", "views['view']")
    for none, found, (owner,) in ranks.run(shared, 2):
        assert none == []
        assert found == ([("first['moments'][0]", "views['moment']"), view] if owner else [view])


def changed() -> list[str]:
    import placed_trees

    world = current()
    given = placed_trees.placed(world)
    before = snapshot(given, "state")
    assert changes(before, snapshot(given, "state")) == []
    if world.rank == 1:
        local(given["weight"])[1, 2] = 8.0
    return [str(each) for each in changes(before, snapshot(given, "state"))]


def test_a_change_of_one_rank_is_found_on_every_rank() -> None:
    first, second = ranks.run(changed, 2)
    assert first == second
    (line,) = first
    assert "state['weight']" in line
    assert "1 of 21 elements, first at [5, 2]" in line
