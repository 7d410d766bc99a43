"""Power cuts: what is not synced when the power fails may be lost, and the run is resumed."""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.proof.contenders import Contender
from benchmarks.proof.processes import Outcome, run
from benchmarks.proof.recording import recorded
from benchmarks.proof.tasks import Task

from crashes.operations import Log  # isort: skip
from crashes.states import State, built, materialise, points  # isort: skip

NEWER, OLDER, AGAIN = "the new checkpoint", "the one before", "the beginning"
ERROR, OTHER = "an error", "other weights"
OUTCOMES = (NEWER, OLDER, AGAIN, ERROR, OTHER)
FATES = ("all", "none", "zeros", "cut")
BATCHES = 8  # after which a process is killed; it has saved one checkpoint


def power_cuts(contender: Contender, place: Path, cuts: int) -> Counter[str]:
    """Cut the power while or after a second checkpoint is saved, and count from where runs go on.

    The first checkpoint is on the disk. The second is there as far as it was synced; `crashed`
    says what becomes of the rest.
    """
    train, task = contender.load(), Task("power cut")
    run(train, task, place / "older", kill_after=BATCHES)
    shutil.copytree(place / "older", place / "newer", symlinks=True)
    command = [sys.executable, "-m", "benchmarks.proof.train", contender.name]
    log = recorded([*command, str(place / "newer"), str(BATCHES)], place / "newer")
    known = {
        NEWER: run(train, task, copied(place / "newer")),
        OLDER: run(train, task, copied(place / "older")),
        AGAIN: run(train, task, place / "straight"),
    }
    counts: Counter[str] = Counter()
    for state in crashed(log, cuts):
        shutil.rmtree(place / "crashed", ignore_errors=True)
        materialise(state, place / "crashed")
        counts[recognised(run(train, task, place / "crashed"), known)] += 1
    return counts


def copied(directory: Path) -> Path:
    copy = directory.with_name(f"{directory.name}_copy")
    shutil.copytree(directory, copy, symlinks=True)
    return copy


def recognised(outcome: Outcome, known: dict[str, Outcome]) -> str:
    """Return where a run went on that ended with the weights of one that lost nothing."""
    if outcome.error:
        return ERROR
    equal = [name for name, one in known.items() if outcome.equals(one)]
    return next((name for name in equal if known[name].batches == outcome.batches), OTHER)


def crashed(log: Log, cuts: int) -> Iterator[State]:
    """Yield what a power cut leaves: half of the times at the end, else at any operation.

    As with the journals of ext4 and XFS, the names that exist are those of some moment since the
    last sync. Bytes that were not synced are there, or missing, or zeros, or cut off.
    """
    draw = random.Random(0)
    last = len(log.operations) - 1
    moments = Counter(last if cut % 2 else draw.randint(0, last) for cut in range(cuts))
    for moment, point in enumerate(points(log)):
        for _ in range(moments[moment]):
            names = point.disk.names[: draw.randint(0, len(point.disk.names))]
            lost = {
                inode: draw.choice(("all", "none", "zeros", "cut")) for inode in point.disk.bytes
            }
            yield built(point.disk, names, lost, draw)
