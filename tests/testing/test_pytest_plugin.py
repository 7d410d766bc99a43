"""The plugin in a pytest of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import processes
import pytest
import torch

import functrain as ft
from functrain import tree
from functrain.testing import pytest_plugin

SEEDED = """
import random, numpy, torch

def test_one():
    torch.rand(3)
    numpy.random.rand(2)

def test_two():
    print("drawn", torch.rand(1).item(), random.random(), numpy.random.rand())

def test_three():
    print("drawn", torch.rand(1).item(), random.random(), numpy.random.rand())
"""
STATES = """
import torch
import functrain as ft

loss = lambda model, batch: model(batch).square().mean()
program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))

def test_states():
    state, _ = program.train_step(program.init(), torch.ones(3, 2))
    assert program.init() == state

def test_diff():
    assert ft.tree.diff({"w": torch.zeros(2)}, {"w": torch.tensor([0.0, -0.0])}) == []
"""


def pytested(path: Path, source: str, *options: str) -> str:
    (path / "conftest.py").write_text('pytest_plugins = ["functrain.testing.pytest_plugin"]')
    (path / "test_it.py").write_text(source)
    done = processes.run("-m", "pytest", *options, "test_it.py", cwd=path)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_each_test_starts_with_the_seed_and_states_are_compared_leaf_by_leaf(
    tmp_path: Path,
) -> None:
    shown = pytested(tmp_path, SEEDED + STATES, "--functrain-seed=7", "-s")
    assert "functrain: --functrain-seed=7 before each test" in shown
    drawn = [line.partition("drawn")[2] for line in shown.splitlines() if "drawn 0" in line]
    assert len(drawn) == 2
    assert drawn[0] == drawn[1]
    assert "the trees differ in" in shown
    assert "params.weight: value: 2 of 2 elements differ" in shown
    assert "w: value: 1 of 2 elements differ, at most by 0 (1 ulp)" in shown
    assert "2 failed" in shown


class TestComparison:
    def explanation(self, left: Any, right: Any, op: str = "==") -> list[str] | None:
        return pytest_plugin.pytest_assertrepr_compare(op, left, right)

    def test_of_plain_values_is_left_to_pytest(self) -> None:
        assert self.explanation([1, 2], [1, 3]) is None
        assert self.explanation({"w": torch.zeros(1)}, {}, "!=") is None
        assert self.explanation("a", {"w": torch.zeros(1)}) is None

    def test_of_equal_states_says_what_to_write(self) -> None:
        loss = lambda model, batch: model(batch).mean()  # noqa: E731
        program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        (line,) = self.explanation(program.init(), program.init()) or []
        assert "functrain.tree.diff(left, right) == []" in line

    def test_of_many_differences_is_cut(self) -> None:
        left = {str(index): torch.zeros(1) for index in range(20)}
        right = tree.map(lambda leaf: leaf + 1, left)
        found = self.explanation(tree.diff(left, right), []) or []
        assert found[0] == "the trees differ in 20 places"
        assert found[-1] == "... and 8 more"


@pytest.mark.parametrize("asked", ["-1", "seven", "1.5"])
def test_a_seed_that_is_none_is_refused(asked: str) -> None:
    class Config:
        @staticmethod
        def getoption(name: str) -> str:
            return asked

    with pytest.raises(pytest.UsageError, match="a whole number or 'random'"):
        pytest_plugin.pytest_configure(Config())  # type: ignore[arg-type]
