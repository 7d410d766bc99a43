"""The pytest plugin of functrain: one seed before each test, and trees compared leaf by leaf.

This module is outside the package because pytest imports it in every project of an environment,
where importing functrain, and torch with it, would cost each run seconds.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

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
    if op != "==" or "functrain" not in sys.modules:
        return None
    from functrain import tree

    if _are_differences(left, tree) and right == []:
        return [f"the trees differ in {len(left)} places", *_lines(left)]  # type: ignore[arg-type]
    if not (_is_tree(left, tree) and _is_tree(right, tree)):
        return None
    found = tree.diff(left, right)
    if not found:
        return [
            "the trees hold the same bytes, but == compares identity: compare with "
            "functrain.tree.diff(left, right) == []"
        ]
    return [
        f"the trees differ in {len(found)} places (expected left, got right)",
        *_lines(found),
    ]


def _seed(config: pytest.Config) -> None:
    asked = config.getoption("--functrain-seed")
    if asked is None:
        return
    seed = int(asked)
    random.seed(seed)
    # A module that a test imports later starts from its own default seed.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed % 2**63)


def _lines(found: list[Any]) -> list[str]:
    more = [f"... and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return [*map(str, found[:_MOST]), *more]


def _are_differences(value: object, tree: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, tree.Difference) for each in value)
    )


def _is_tree(value: object, tree: Any) -> bool:
    """Return whether a value is a node with a tensor in it; leave plain containers to pytest."""
    if not tree.is_node(value):
        return False
    tensor = sys.modules["torch"].Tensor
    return any(isinstance(leaf, tensor) for _, leaf in tree.items(value))
