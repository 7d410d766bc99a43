"""The examples of CONTRIBUTING.md run and are short, and the code that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import documents
import pytest
from import_graph import ROOMS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
TEXT = PAGE.read_text()
STEP = re.findall(r"^\| `(functrain/[\w/]+\.py)` \| `(\w+)` \|", TEXT, re.MULTILINE)
_MOST_LINES = 60


def test_an_optimizer_a_schedule_a_listener_and_a_transformation_are_short_and_run() -> None:
    assert all(block.count("\n") < _MOST_LINES for block in documents.blocks(PAGE))
    assert {"Signum", "Halving", "Worst", "counting"} <= documents.run(PAGE).keys()


def test_named_paths_and_targets_exist() -> None:
    for path in re.findall(r"`((?:functrain|tests|docs|benchmarks|property_tests)/[\w/.]*)`", TEXT):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^make ([a-z][a-z -]*?)  +#", TEXT, re.MULTILINE)
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets
    assert {name for each in targets for name in each.split()} <= rules


def test_the_picture_shows_all_rooms_in_order() -> None:
    assert tuple(re.findall(r"^    (\w+)  +\S", TEXT, re.MULTILINE)) == ROOMS


@pytest.mark.parametrize(("path", "name"), STEP)
def test_the_way_of_a_batch_is_that_of_the_code(path: str, name: str) -> None:
    assert re.search(rf"^ *(?:def|class) {name}\b", (ROOT / path).read_text(), re.MULTILINE)
