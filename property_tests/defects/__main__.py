"""Plant every defect, or those whose names hold a word, and print which laws detected them."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from .defect import Defect
from .planting import outcome, planted
from .table import DEFECTS

_AT_ONCE = 2


def noticed(defect: Defect) -> bool:
    """Return whether the law of a defect fails."""
    started = time.monotonic()
    with TemporaryDirectory() as place:
        found = outcome(planted(defect, Path(place).resolve()), [defect.law])
    word = "noticed" if found.failed else "MISSED "
    seconds = time.monotonic() - started
    law = defect.law.partition("::")[2]
    print(f"{word} {seconds:5.1f} s  {defect.name}\n  {law}: {found.reason[:90]}", flush=True)
    return bool(found.failed)


def main(words: list[str]) -> int:
    """Return how many defects were missed, or laws failed without one."""
    chosen = [each for each in DEFECTS if not words or any(word in each.name for word in words)]
    with TemporaryDirectory() as place:
        laws = dict.fromkeys(defect.law for defect in chosen)
        sound = outcome(planted(None, Path(place).resolve()), laws)
    print(f"without a defect: {sound.passed} laws hold, {sound.failed} do not", flush=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(noticed, chosen))
    print(f"{sum(found)} of {len(found)} defects were noticed")
    return sound.failed + found.count(False)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
