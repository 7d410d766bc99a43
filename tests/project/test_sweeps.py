"""``make test`` runs one test of each kind of a sweep, and ``make test-long`` the others."""

from __future__ import annotations

from pathlib import Path

import processes

ROOT = Path(__file__).parents[2]
SWEEPS = """
import processes
import pytest

@pytest.mark.sweep("kind")
@pytest.mark.parametrize("kind", ["a", "b"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_of_a_kind(kind, size): ...

@pytest.mark.sweep
@pytest.mark.parametrize("size", [1, 2, 3])
def test_of_one_kind(size): ...

@pytest.mark.long
def test_long(): ...

def test_short(): ...
"""


BOTH = """
import pytest

for marker in ("not long", "long"):
    pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-m", marker])
    print("---")
"""


def selected(place: Path) -> list[set[str]]:
    """Return the tests that are not long, and those that are."""
    (place / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (place / "test_sweeps.py").write_text(SWEEPS)
    parts = processes.run("-c", BOTH, cwd=place).stdout.split("---")[:2]
    names = [[line.partition("::")[2] for line in part.splitlines()] for part in parts]
    return [{name for name in each if name} for each in names]


def test_a_sweep_has_one_short_test_of_each_kind(tmp_path: Path) -> None:
    short, long = selected(tmp_path)
    assert short == {
        "test_of_a_kind[1-a]",
        "test_of_a_kind[1-b]",
        "test_of_one_kind[1]",
        "test_short",
    }
    assert len(long) == 4 + 2 + 1
    assert not short & long
