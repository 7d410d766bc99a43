"""Rounds of torture: disturb a run repeatedly, finish it, and compare it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import attrs

import functrain as ft
from functrain import tree
from functrain.training.resume import TYPES
from torture.faults import FAULTS, FULL_DISK
from torture.runs import CASES, FILES, Child

_DISK = 96 << 20
_JUMPS = "jumping clock"


@attrs.define(eq=False)
class Torture:
    """The rounds of this session and their problems.

    Attributes:
        place: where runs are written; there must be nothing.
        seed: of all that is random.
        counts: by fault, how often.
        problems: what is not as it should be, with the round that repeats it.
        rounds: that were finished.
        befallen: what the present round has seen, in order.
    """

    place: Path
    seed: int
    counts: Counter[str] = attrs.field(factory=Counter)
    problems: list[str] = attrs.field(factory=list)
    rounds: int = 0
    befallen: list[str] = attrs.field(factory=list)

    def straight(self, case: str) -> Path:
        """Return the undisturbed run, which is made once."""
        directory = self.place / f"straight-{case}"
        if not directory.exists():
            child = Child.start(case, directory)
            if child.await_end(300) != 0:
                raise RuntimeError(f"{case} fails by itself:\n{child.said()}")
        return directory

    def round(self, case: str, number: int, most: int, deadline: float) -> None:
        """Disturb a run up to ``most`` times, finish it, compare it, and remove it if right."""
        random = Random(f"{self.seed}/{case}/{number}")
        self.befallen = []
        before, place = len(self.problems), self.place / f"round-{number}-{case}"
        expected = self.straight(case)
        with _disk(place) as small:
            faults = FAULTS | FULL_DISK if small else FAULTS
            for _ in range(most):
                late = time.monotonic() > deadline
                if late or self._disturb(case, place / "run", faults, random):
                    break
            name = f"round {number} of {case}, seed {self.seed} ({', '.join(self.befallen)})"
            child = Child.start(case, place / "run")
            if (code := child.await_end(300)) != 0:
                self.problems.append(f"{name}: exit code {code} undisturbed\n{child.said()}")
            else:
                self.problems += [f"{name}: {each}" for each in differing(expected, place / "run")]
            if len(self.problems) > before:
                shutil.copytree(place, place.with_name(f"failed-{place.name}"))
        shutil.rmtree(place, ignore_errors=True)
        self.rounds += 1

    def _disturb(self, case: str, directory: Path, faults: dict, random: Random) -> bool:
        """Disturb one process; return whether it finished its run nevertheless."""
        jumps = random.random() < 0.25
        name = random.choice(list(faults))
        child = Child.start(case, directory, str(random.random()) if jumps else None)
        if random.random() < 0.2:
            time.sleep(random.uniform(0, 5))  # while it starts or restores
        else:
            child.await_progress()
            time.sleep(random.expovariate(4))
        hit = child.alive
        allowed = faults[name](child, random)
        code = child.await_end()
        if hit:
            self.counts[name] += 1
            self.counts[_JUMPS] += jumps
        self.befallen.append(f"{name}: {code}")
        if code is None or (allowed is not None and code not in allowed):
            told = "hangs" if code is None else f"exit code {code}"
            self.problems.append(f"{case}, seed {self.seed}: {name}: {told}\n{child.said()}")
        return code == 0


def differing(expected: Path, got: Path) -> Iterator[str]:
    """List differences of a run directory from that of the undisturbed run."""
    for file in FILES:
        if (expected / file).read_bytes() != (got / file).read_bytes():
            yield f"{file} differs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged checkpoints that are skipped
        trees = [ft.Checkpoints(each).restore("latest", types=TYPES)[0] for each in (expected, got)]
    # Compare the files of listeners, since their states hold only rows not written yet. Compare
    # only the last state of a loader: an earlier one depends on where the loader was resumed.
    parts = [
        {"train": each.train, "loop": each.loop, "data": each.data and each.data["snapshots"][-1]}
        for each in trees
    ]
    yield from map(str, tree.diff(*parts)[:5])


def run(torture: Torture, minutes: float, most: int = 8, cases: tuple[str, ...] = ()) -> None:
    """Run rounds over the cases in order until the time is up."""
    deadline, number = time.monotonic() + 60 * minutes, 0
    chosen = cases or tuple(CASES)
    while time.monotonic() < deadline:
        torture.round(chosen[number % len(chosen)], number, most, deadline)
        number += 1


def report(torture: Torture) -> str:
    """Return counts and problems as text."""
    total = sum(torture.counts.values())
    rows = [f"  {count:4d} {name}" for name, count in sorted(torture.counts.items())]
    title = f"{torture.rounds} rounds, {total} faults, seed {torture.seed}"
    return "\n".join([title, *rows, *torture.problems])


@contextlib.contextmanager
def _disk(place: Path) -> Iterator[bool]:
    """Provide a directory, on its own small file system if allowed, and whether it is."""
    place.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={_DISK}", "functrain-torture"]
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(["mount", *options, str(place)], capture_output=True).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
