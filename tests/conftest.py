"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from _pytest.doctest import DoctestModule
from hypothesis import HealthCheck, settings

# Sums over several threads have other last bits, so processes that tests start use one thread too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Test modules share the helper modules in support.
sys.path.insert(0, str(Path(__file__).parent / "support"))

from models import CASES, Case

# No test depends on how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


# A test takes its settings when its module is imported. torch's own test utilities, which some
# tests import, load a profile of theirs.
def pytest_collectstart() -> None:
    settings.load_profile("tests")


# The examples are in functrain; to look for some here would import every helper module.
@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Iterator[None]:
    return [each for each in (yield) if not isinstance(each, DoctestModule)]


# Before pytest selects by marker.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of a sweep but one of each kind as long."""
    kept: set[tuple[str, ...]] = set()
    for item in items:
        if (sweep := item.get_closest_marker("sweep")) and isinstance(item, pytest.Function):
            values = item.callspec.params
            kind = (item.nodeid.partition("[")[0], *(repr(values[name]) for name in sweep.args))
            if kind in kept:
                item.add_marker(pytest.mark.long)
            kept.add(kind)


# Each full collection of garbage would walk over all that was imported, for half a second.
@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
