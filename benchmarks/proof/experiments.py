"""The experiments: a run killed in a task, a bit flipped in a checkpoint, a kill while saving."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path

import attrs

from benchmarks.proof.contenders import Contender, Train
from benchmarks.proof.processes import Outcome, run, run_together, start
from benchmarks.proof.tasks import Task

SAME, OTHER, FAILED, RESUMED = "same bytes", "OTHER BYTES", "an error", "resumed"


def resumed(train: Train, task: Task, place: Path) -> str:
    """Kill a run as the task says, resume it, and compare with a run that was not killed."""
    straight = run(train, task, place / "straight")
    if straight.error:
        return f"cannot run: {straight.error}"
    for batches in task.kills:
        if not run(train, task, place / "killed", kill_after=batches).was_killed:
            return "was not killed"
    return compared(run(train, task, place / "killed"), straight)


def compared(outcome: Outcome, straight: Outcome) -> str:
    if outcome.error:
        return FAILED
    return SAME if outcome.equals(straight) else OTHER


def damaged(contender: Contender, place: Path, flips: int) -> Counter[str]:
    """Flip single bits in the files of a killed run, and count how its resumption ends.

    It is compared with a resumption of the undamaged run.
    """
    train, task = contender.load(), Task("damage", kills=(13,))
    run(train, task, place / "killed", kill_after=task.kills[0])
    shutil.copytree(place / "killed", place / "undamaged", symlinks=True)
    undamaged = run(train, task, place / "undamaged")
    files = [path for path in sorted((place / "killed").rglob("*")) if path.is_file()]
    counts: Counter[str] = Counter()
    for at in positions([path.stat().st_size for path in files], flips):
        shutil.rmtree(place / "flipped", ignore_errors=True)
        shutil.copytree(place / "killed", place / "flipped", symlinks=True)
        flip(place / "flipped" / files[at.file].relative_to(place / "killed"), at)
        counts[compared(run(train, task, place / "flipped"), undamaged)] += 1
    return counts


@attrs.frozen
class Position:
    file: int
    byte: int
    bit: int


def positions(sizes: list[int], count: int) -> list[Position]:
    """Return bits at random places of the files, more in the large ones; always the same."""
    draw = random.Random(0)
    found = []
    for _ in range(count):
        (file,) = draw.choices(range(len(sizes)), weights=sizes)
        found.append(Position(file, draw.randrange(sizes[file]), draw.randrange(8)))
    return found


def flip(path: Path, at: Position) -> None:
    data = bytearray(path.read_bytes())
    data[at.byte] ^= 1 << at.bit
    path.write_bytes(data)


def killed_while_saving(contender: Contender, place: Path, kills: int) -> Counter[str]:
    """Kill runs that save a larger network after each batch, and count how resumption ends."""
    train, task = contender.load(), Task("kill", width=700, save_every=1)
    begun = time.perf_counter()
    run(train, task, place / "straight")
    seconds = time.perf_counter() - begun
    draw, counts = random.Random(0), Counter[str]()
    for attempt in range(kills):
        directory = place / f"killed_{attempt}"
        process = start(train, task, directory)
        time.sleep(draw.uniform(0.2, 0.9) * seconds)
        process.kill()
        counts[FAILED if run(train, task, directory).error else RESUMED] += 1
        shutil.rmtree(directory, ignore_errors=True)  # Keras removes it at the end of a run
    return counts


def on_two_processes(train: Train, task: Task, place: Path, first: int) -> str:
    """Train on two processes, the first so many batches on one, and compare with one process."""
    straight = run(train, task, place / "straight")
    if first and not run(train, task, place / "changed", kill_after=first).was_killed:
        return "was not killed"
    outcome = run_together(train, task, place / "changed", ranks=2)
    if outcome.error or outcome.was_killed:
        return FAILED
    if outcome.equals(straight):
        return SAME
    return f"{outcome.distance(straight):.0e} apart"
