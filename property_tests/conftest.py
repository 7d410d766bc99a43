"""How many examples a law is tried with: few and the same each time, or many; and the counts.

FUNCTRAIN_EXAMPLES=long tries many different ones each time (``make properties``); the seed that
Hypothesis prints on failure repeats them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "support")]

from tally import Counts, Tally, counting, table  # noqa: E402  (after their place)
from trying import load_profile  # noqa: E402

COUNTS = pytest.StashKey[Counts]()
load_profile()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts by the law itself: resumptions, fresh processes, kills."""
    found = Tally()
    yield found
    request.node.user_properties.extend(found.properties())


# A law takes its settings when its module is imported. torch's own test utilities, which other
# tests import, may have loaded their profile by then.
def pytest_collectstart() -> None:
    load_profile()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Count the examples that Hypothesis tries."""
    with counting(getattr(item, "obj", None)) as tried:
        result = yield
    if tried:
        item.user_properties.append(("examples", len(tried)))
    return result


# The counts travel with the reports, which pytest-xdist collects in one process.
def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = Counts()
    config.pluginmanager.register(Adding(config.stash[COUNTS]), "functrain-counts")


class Adding:
    """Add up the reports of all tests, also outside this directory."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.counts.add(report.nodeid, report.user_properties)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print them, law by law."""
    counts = config.stash[COUNTS]
    if counts.laws:
        terminalreporter.section("laws")
        for line in table(counts):
            terminalreporter.write_line(line)
