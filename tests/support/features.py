"""A pytest plugin that writes which tests cover which feature: ``make features``.

Tests carry ``@pytest.mark.row(number)``. The table marks features without a passing test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

FEATURES = {
    1: "pure step",
    2: "frozen state",
    3: "any existing loss",
    4: "step count",
    5: "accumulation",
    6: "clipping",
    7: "parameter groups",
    8: "mixed precision",
    9: "average of the weights",
    10: "NaN and infinity",
    11: "empty batch",
    12: "training and evaluation mode",
    13: "optimizers",
    14: "any torch optimizer",
    15: "every hyperparameter counts",
    16: "any torch scheduler",
    17: "pure schedules",
    18: "warmups",
    19: "hyperbolic schedules",
    20: "plateau",
    21: "every sample once an epoch",
    22: "units of duration",
    23: "intervals",
    24: "evaluation",
    25: "early stopping",
    26: "best",
    27: "events",
    28: "listeners that stop or fail",
    29: "reason of every ending",
    30: "kinds of data",
    31: "mixing",
    32: "exact resumption",
    33: "resumption within an epoch",
    34: "logs",
    35: "atomic checkpoints",
    36: "retention",
    37: "latest, best, path, step",
    38: "final checkpoint",
    39: "compatibility",
    40: "weights only",
    41: "sinks",
    42: "progress",
    43: "profiler",
    44: "memory and gradient monitors",
    45: "generation",
    46: "configuration",
    47: "search",
    48: "prediction of the final loss",
    49: "distributed",
    50: "compiled step",
    51: "donation",
    52: "purity checked",
    53: "resumption as a law",
    54: "fork, rewind, diff",
    55: "population",
    56: "differentiable training",
    57: "placement",
    58: "complete by construction",
    59: "elastic bytes",
}

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
        lines = [self.line(row, name) for row, name in FEATURES.items()]
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
