"""Counts of the cases that the laws were tried on."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

NAMES = ("examples", "resumptions", "fresh", "kills")


@attrs.define
class Tally:
    """The counts of one test.

    Attributes:
        resumptions: runs that were cut and resumed, and were the run that was never cut.
        fresh: those of them whose parts each had a process of its own.
        kills: parts that were ended by SIGKILL.
    """

    resumptions: int = 0
    fresh: int = 0
    kills: int = 0

    def properties(self) -> list[tuple[str, int]]:
        """Return the counts as properties of a test."""
        return [(name, count) for name, count in attrs.asdict(self).items() if count]


@attrs.define
class Counts:
    """The counts of all tests: by law, then by name."""

    laws: dict[str, dict[str, int]] = attrs.field(factory=dict)

    def add(self, test: str, properties: Iterable[tuple[str, Any]]) -> None:
        """Add the properties of one test; its parameters do not make it another law."""
        law = test.partition("[")[0]
        for name, count in properties:
            if name in NAMES:
                own = self.laws.setdefault(law, {})
                own[name] = own.get(name, 0) + int(count)

    def total(self, name: str) -> int:
        """Return the sums over all laws."""
        return sum(own.get(name, 0) for own in self.laws.values())


@contextlib.contextmanager
def counting(test: Any) -> Iterator[list[None]]:
    """Provide a list that grows with each passing example of a law, and stays empty elsewhere."""
    held: list[None] = []
    handle = getattr(getattr(test, "__func__", test), "hypothesis", None)
    if handle is None:
        yield held
        return
    law = handle.inner_test

    @functools.wraps(law)
    def counted(*arguments: Any, **named: Any) -> Any:
        answer = law(*arguments, **named)
        held.append(None)
        return answer

    handle.inner_test = counted
    try:
        yield held
    finally:
        handle.inner_test = law


def table(counts: Counts) -> list[str]:
    """Return one line per law, and one for all of them."""
    rows = [
        (law.replace("::", " ").removeprefix("property_tests/"), own)
        for law, own in sorted(counts.laws.items())
    ]
    total = {name: counts.total(name) for name in NAMES}
    width = max(len(law) for law, _ in rows)
    lines = [f"{'':{width}} " + " ".join(f"{name:>11}" for name in NAMES)]
    for law, own in [*rows, ("in all", total)]:
        cells = (f"{own[name]:>11,}" if own.get(name) else " " * 11 for name in NAMES)
        lines.append(f"{law:{width}} " + " ".join(cells).rstrip())
    return lines
