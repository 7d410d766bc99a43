"""Any number of ranks loads what any other number has saved, each rank its own part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import placed_states
import pytest
import ranks
import torch
from torch.distributed.tensor import DTensor

import functrain as ft
from functrain import tree
from functrain.distributed import current


def same(found: Any, expected: Any) -> bool:
    """Return whether a leaf has the same bytes and the same placement."""
    if not isinstance(expected, DTensor):
        return tree.equal(found, expected)
    placed = (found.device_mesh, found.placements) == (expected.device_mesh, expected.placements)
    whole = found.shape == expected.shape and found.stride() == expected.stride()
    return placed and whole and tree.equal(found.to_local(), expected.to_local())


def load(directory: Path, **options: Any) -> list[tree.Path]:
    """Return the paths of leaves that are not those expected."""
    like = placed_states.placed(current(), seed=5)
    expected = dict(tree.items(placed_states.placed(current())))
    found = dict(tree.items(ft.load(directory, like=like, **options)))
    assert found.keys() == expected.keys()
    return [path for path in found if not same(found[path], expected[path])]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_each_rank_loads_its_part(tmp_path: Path, n: int) -> None:
    saved = ft.save(tmp_path / "alone", placed_states.whole())
    assert ranks.run(load, n, saved) == [[]] * n


def options(directory: Path) -> list[list[tree.Path]]:
    cases: list[dict[str, Any]] = [
        {"only": "*"},
        {"partial": True},
        {"cast": True},
        {"rename": {"optimizer.first": "optimizer.rows"}},
        {"migrate": lambda saved: saved},
        {"verify": False},
    ]
    return [load(directory / ("renamed" if "rename" in case else "same"), **case) for case in cases]


def test_options_of_load(tmp_path: Path) -> None:
    state = placed_states.whole()
    ft.save(tmp_path / "same", state)
    slots = state["optimizer"]
    state["optimizer"] = {"first": slots.pop("rows"), **slots}
    ft.save(tmp_path / "renamed", state)
    assert ranks.run(options, 2, tmp_path) == [[[]] * 6] * 2


def cast(directory: Path) -> bool:
    like = {"w": placed_states.rows(current(), torch.zeros(6, 64, dtype=torch.float64))}
    found = ft.load(directory, like=like, cast=True)["w"]
    own = placed_states.rows(current(), torch.arange(384.0, dtype=torch.float64).reshape(6, 64))
    return same(found, own)


def test_parts_are_cast(tmp_path: Path) -> None:
    ft.save(tmp_path / "w", {"w": torch.arange(384.0).reshape(6, 64)})
    assert ranks.run(cast, 2, tmp_path / "w") == [True, True]
