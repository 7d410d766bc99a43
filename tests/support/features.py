"""A pytest plugin that writes which tests cover which feature: ``make features``.

Tests carry ``@pytest.mark.row(number)``. The table that is
rewritten names the features; it marks those without a passing test.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

_HEAD = """# Features and the tests that cover them

Written by `make features`, from the tests that carry `@pytest.mark.row(number)`. Features without a
passing test are marked.

| # | feature | status | tests |
|--:|:--|:--|:--|
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--features", type=Path, help="write the table of features to this file")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--features")
    # Only the process that receives all results writes.
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(path))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        rows = sorted({mark.args[0] for mark in item.iter_markers("row")})
        item.user_properties.append(("rows", rows))


class Results:
    """Counts outcomes by feature and test function."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[int, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        name = report.nodeid.partition("[")[0]
        for row in dict(report.user_properties).get("rows", ()):
            self.found[row][name][report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        named = re.findall(r"^\| (\d+) \| ([^|]+) \|", self.path.read_text(), re.MULTILINE)
        lines = [self.line(int(row), name) for row, name in named]
        self.path.write_text(_HEAD + "\n".join(lines) + "\n")

    def line(self, row: int, name: str) -> str:
        tests = self.found.get(row, {})
        outcomes = sum(tests.values(), Counter())
        if outcomes["failed"]:
            status = f"**{outcomes['failed']} failed**"
        elif outcomes["passed"]:
            status = f"{outcomes['passed']} passed"
        else:
            status = "**no test**" if not outcomes else "**only skipped**"
        files = Counter(test.partition("::")[0] for test in tests)
        shown = ", ".join(f"`{file}`" for file, _ in files.most_common())
        return f"| {row} | {name} | {status} | {shown} |"
