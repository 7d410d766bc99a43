"""The examples of CONTRIBUTING.md run and are short, and the paths that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
_MOST_LINES = 60


def test_an_optimizer_a_schedule_a_listener_and_a_transformation_are_short_and_run() -> None:
    names: dict[str, object] = {}
    for block in BLOCKS:
        assert block.count("\n") < _MOST_LINES
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    assert {"Signum", "Halving", "Worst", "counting"} <= names.keys()


def test_named_paths_and_targets_exist() -> None:
    for path in re.findall(r"`((?:functrain|tests|docs|benchmarks|property_tests)/[\w/.]*)`", TEXT):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"`?make ([a-z][\w ]*)", TEXT)
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {name for each in targets for name in each.split()} & rules >= {"setup", "test", "site"}
