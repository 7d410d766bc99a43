"""A pytest plugin: one seed before each test, and trees compared leaf by leaf.

Put ``pytest_plugins = ["functrain.testing.pytest_plugin"]`` into the ``conftest.py`` at the root.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from functrain import tree

_MOST = 12


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--functrain-seed``."""
    parser.getgroup("functrain").addoption(
        "--functrain-seed",
        metavar="N",
        help="seed torch, random and NumPy with N before each test; 'random' draws an N",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Draw a random seed if requested; pytest-xdist passes it on to its processes."""
    asked = config.getoption("--functrain-seed")
    if asked == "random":
        config.option.functrain_seed = str(random.SystemRandom().randrange(2**32))
    elif asked is not None and not asked.isdigit():
        raise pytest.UsageError(f"--functrain-seed takes a whole number or 'random', got {asked!r}")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Report the seed, which reproduces a failure."""
    seed = config.getoption("--functrain-seed")
    return None if seed is None else f"functrain: --functrain-seed={seed} before each test"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed before the fixtures of a test."""
    _seed(item.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Seed again before the test itself, since the fixtures made before it depend on the order."""
    _seed(item.config)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Report where two states or trees differ; leave other comparisons to pytest."""
    if op != "==":
        return None
    if isinstance(left, list) and right == [] and _are_differences(left):
        return [f"the trees differ in {len(left)} places", *_lines(left)]
    if not (_is_tree(left) and _is_tree(right)):
        return None
    found = tree.diff(left, right)
    if not found:
        return [
            "the trees hold the same bytes, but == compares identity: compare with "
            "functrain.tree.diff(left, right) == []"
        ]
    return [f"the trees differ in {len(found)} places (expected left, got right)", *_lines(found)]


def _seed(config: pytest.Config) -> None:
    asked = config.getoption("--functrain-seed")
    if asked is None:
        return
    seed = int(asked)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


def _lines(found: list[Any]) -> list[str]:
    more = [f"... and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return [*map(str, found[:_MOST]), *more]


def _are_differences(found: list[Any]) -> bool:
    return bool(found) and all(isinstance(each, tree.Difference) for each in found)


def _is_tree(value: object) -> bool:
    """Return whether a value is a node with a tensor in it; leave plain containers to pytest."""
    if not tree.is_node(value):
        return False
    return any(isinstance(leaf, torch.Tensor) for _, leaf in tree.items(value))
