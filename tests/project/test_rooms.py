"""Imports between the rooms of the package point one way."""

from __future__ import annotations

from pathlib import Path

import pytest
from import_graph import ROOMS, circles, closure, import_graph, room

ROOT = Path(__file__).parents[2]

# These may use functrain as users do: `import functrain as ft`.
USERS = ("search", "config", "cli", "examples", "__main__")


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return import_graph(ROOT)


def points_back(source: str, target: str) -> bool:
    source, target = room(source), room(target)
    if source in ("", "__main__"):  # the face names everything; python -m functrain starts the cli
        return False
    if target == "":
        return source not in USERS
    if target == "diagnosis":  # only code that has failed imports it, in a function
        return source != target
    return ROOMS.index(target) > ROOMS.index(source)


def test_imports_point_to_rooms_before_and_never_in_a_circle(graph: dict[str, set[str]]) -> None:
    back = {(name, t) for name, targets in graph.items() for t in targets if points_back(name, t)}
    wrong = back | circles(graph)
    found = sorted(f"{name} -> {target}" for name, target in wrong)
    assert not found, f"these imports point back, or lie on a circle in a room: {found}"


def test_core_imports_errors_and_tree_only(graph: dict[str, set[str]]) -> None:
    own = {target for name, ts in graph.items() if room(name) == "core" for target in ts}
    assert {room(target) for target in own} == {"errors", "tree", "core"}


def test_no_loose_files_at_the_top() -> None:
    entries = {path.name for path in (ROOT / "functrain").iterdir()} - {"__pycache__"}
    assert entries == {"__init__.py", "__main__.py", "py.typed", *ROOMS}


def test_a_program_imports_few_files(graph: dict[str, set[str]]) -> None:
    found = closure(graph, "functrain.core.program")
    assert len(found) <= 60, sorted(found)
