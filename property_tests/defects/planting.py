"""Planting a defect in a copy of the package, and running its law on that copy.

The law runs in a process of its own that imports functrain from the copy; where it does not, that
is an error and no verdict.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import attrs

from .defect import Defect

ROOT = Path(__file__).parents[2]
_SECONDS = 900
# Errors that show a nonsensical change and not a defect.
_NONSENSE = re.compile(r"^E +(NameError|AttributeError|ImportError|SyntaxError)\b.*", re.MULTILINE)
# Loaded by pytest as a plugin before anything is collected.
_STANDING = """
from pathlib import Path
import functrain

def pytest_report_header():
    return f"functrain is {Path(functrain.__file__).parent}"
"""


class DefectError(ValueError):
    """A defect cannot be planted, or its law could not be run."""


@attrs.frozen
class Outcome:
    """The outcome of laws on a copy: the numbers of failed and passed ones, and the output."""

    failed: int
    passed: int
    output: str

    @property
    def reason(self) -> str:
        """Return the first line of the first error."""
        lines = (line for line in self.output.splitlines() if line.startswith("E "))
        return next(lines, "").removeprefix("E").strip()


def changed(defect: Defect, text: str) -> str:
    """Return the text of a file with the defect in it.

    Raises:
        DefectError: a piece to be replaced is not there, or is there more than once.
    """
    for old, new in defect.changes:
        if text.count(old) != 1:
            raise DefectError(
                f"{defect.name!r}: expected once in functrain/{defect.file}, got "
                f"{text.count(old)} times: {old!r}. Bring the table up to date"
            )
        text = text.replace(old, new)
    return text


def planted(defect: Defect | None, place: Path) -> Path:
    """Copy the package to a directory, and plant a defect in the copy.

    Args:
        defect: ``None`` for a copy without any.
        place: a directory of its own.
    """
    # With what Python has compiled, except what another process is writing just now.
    ignored = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(ROOT / "functrain", place / "functrain", ignore=ignored)
    (place / "standing.py").write_text(_STANDING)
    if defect is not None:
        file = place / "functrain" / defect.file
        file.write_text(changed(defect, file.read_text()))
    return place


def outcome(place: Path, laws: Iterable[str]) -> Outcome:
    """Run laws on the copy of the package in a directory.

    Raises:
        DefectError: they did not run on that copy, or not at all, or the copy is no program.
    """
    tests = [str(ROOT / law) for law in laws]
    command = [sys.executable, "-m", "pytest", "-p", "standing", "-p", "no:cacheprovider"]
    options = ["-c", str(ROOT / "setup.cfg"), "--rootdir", str(ROOT), "--tb=short"]
    done = subprocess.run(
        [*command, *options, *tests],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": str(place),
            "FUNCTRAIN_EXAMPLES": "broken",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    failed, passed = (_number(word, done.stdout) for word in ("failed", "passed"))
    if f"functrain is {place / 'functrain'}" not in said or failed + passed != len(tests):
        raise DefectError(f"{tests} did not run on the copy in {place}:\n{said[-3000:]}")
    if nonsense := _NONSENSE.search(said):
        raise DefectError(f"{tests} failed for the wrong reason: {nonsense[0]}")
    return Outcome(failed, passed, said)


def _number(word: str, output: str) -> int:
    found = re.findall(rf"(\d+) {word}", output.splitlines()[-1] if output else "")
    return int(found[0]) if found else 0
