"""Disturb real runs, finish them, and compare them with an undisturbed one: see ``make torture``.

Every disturbed run must end in the same state, log, CSV and digests, byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import attrs

import functrain as ft
from functrain import tree
from functrain.errors import CheckpointCorruptError, NoCheckpointError
from functrain.training.resume import TYPES

FILES = ("metrics.jsonl", "metrics.csv", "digests.jsonl")
RUN = (
    *("digits", "model.width=8", "data.workers=2", "program.accumulate=2", "threads=1"),
    *("fit.until=150 steps", "fit.eval_every=20 steps", "fit.save_every=7 steps"),
    *("checkpoints.background=true", "checkpoints.keep_last=3"),
    "listeners=[{_target_: functrain.listeners.CSV, path: '${directory}/metrics.csv'},"
    " {_target_: functrain.listeners.Digests, directory: '${directory}'}]",
)


class Child:
    """A process of ``functrain train``, and its workers."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.output = directory, directory.with_suffix(".txt")
        command = [sys.executable, "-m", "functrain", "train", *RUN, f"directory={directory}"]
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )

    def signal(self, number: signal.Signals, group: bool = True) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process.pid, number)

    def await_progress(self, seconds: float = 60) -> None:
        """Wait until the log has grown or the process has ended."""
        before, deadline = self._logged(), time.monotonic() + seconds
        while self.process.poll() is None and self._logged() <= before:
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)

    def await_end(self, seconds: float = 300) -> int | None:
        """Return the exit code, or ``None`` if the process hangs."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.signal(signal.SIGKILL)  # workers, too
            self.process.wait()

    def _logged(self) -> int:
        log = self.directory / "metrics.jsonl"
        return log.stat().st_size if log.exists() else 0


# -- faults: each returns the exit codes that it allows, or None for any ------------------------


def kill(child: Child, random: Random) -> set[int] | None:
    child.signal(signal.SIGKILL)
    return {0, -signal.SIGKILL}


def terminate(child: Child, random: Random) -> set[int] | None:
    child.signal(signal.SIGTERM, group=False)
    return {0, 143, -signal.SIGTERM}


def interrupt(child: Child, random: Random) -> set[int] | None:
    """Interrupt all processes, like Ctrl-C in a terminal."""
    child.signal(signal.SIGINT)
    return {0, 130, 1, -signal.SIGINT}


def terminate_and_kill(child: Child, random: Random) -> set[int] | None:
    """Terminate and soon after kill, like cluster schedulers."""
    allowed = terminate(child, random) or set()
    time.sleep(random.uniform(0, 0.05))
    return allowed | (kill(child, random) or set())


def pause_and_kill(child: Child, random: Random) -> set[int] | None:
    child.signal(signal.SIGSTOP)
    time.sleep(random.uniform(0.1, 1))
    child.signal(signal.SIGCONT)
    time.sleep(random.uniform(0, 0.3))
    return kill(child, random)


def kill_worker(child: Child, random: Random) -> set[int] | None:
    """Kill a data worker; the run ends with an error, or continues."""
    children = Path(f"/proc/{child.process.pid}/task/{child.process.pid}/children")
    with contextlib.suppress(OSError):
        if workers := children.read_text().split():
            os.kill(int(random.choice(workers)), signal.SIGKILL)
    return None


def limit_files(child: Child, random: Random) -> set[int] | None:
    """Limit the size of files, like a quota."""
    limit = random.randrange(1 << 16)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    return None


def damage(child: Child, random: Random) -> set[int] | None:
    """Kill, and damage the newest checkpoint where an older valid one remains."""
    child.signal(signal.SIGKILL)
    child.await_end()
    store = ft.Checkpoints(child.directory)
    steps = store.steps() if child.directory.is_dir() else []
    if sum(is_valid(store, step) for step in steps) > 1:
        file = random.choice(sorted(store.path(steps[-1]).iterdir()))
        data = bytearray(file.read_bytes())
        if data and random.random() < 0.5:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
            file.write_bytes(data)
        else:
            file.unlink()
    return None


def is_valid(store: ft.Checkpoints, step: int) -> bool:
    try:
        store.verify(step)
    except (CheckpointCorruptError, NoCheckpointError):
        return False
    return True


Fault = Callable[[Child, Random], set[int] | None]
FAULTS: tuple[Fault, ...] = (
    *(kill, terminate, interrupt, terminate_and_kill, pause_and_kill),
    *(kill_worker, limit_files, damage),
)


@attrs.define
class Torture:
    """The rounds of a session: how often each fault happened, and what is wrong."""

    place: Path
    seed: int
    counts: Counter[str] = attrs.field(factory=Counter)
    problems: list[str] = attrs.field(factory=list)
    befallen: list[str] = attrs.field(factory=list)

    def round(self, number: int, most: int) -> None:
        """Disturb a run up to ``most`` times, finish it, compare it, and remove it if right."""
        random = Random(f"{self.seed}/{number}")
        expected, run = self.place / "straight", self.place / f"round-{number}"
        if not expected.exists():
            self._finish(expected)
        before, self.befallen = len(self.problems), []
        for _ in range(most):
            if self._disturb(run, random):
                break
        self._finish(run)
        after = f"{run.name} ({', '.join(self.befallen)})"
        self.problems += [f"{after}: {each}" for each in differing(expected, run)]
        if len(self.problems) == before:
            shutil.rmtree(run)

    def _finish(self, run: Path) -> None:
        child = Child(run)
        if code := child.await_end():
            text = child.output.read_text(errors="replace")
            self.problems.append(f"{run.name}: exit code {code} undisturbed\n{text[-6000:]}")

    def _disturb(self, run: Path, random: Random) -> bool:
        """Disturb one process; return whether it finished its run nevertheless."""
        fault, child = random.choice(FAULTS), Child(run)
        if random.random() < 0.2:
            time.sleep(random.uniform(0, 5))  # while it starts or restores
        else:
            child.await_progress()
            time.sleep(random.expovariate(4))
        self.counts[fault.__name__] += child.process.poll() is None
        allowed = fault(child, random)
        code = child.await_end()
        self.befallen.append(f"{fault.__name__}: {code}")
        if code is None or (allowed is not None and code not in allowed):
            self.problems.append(f"{run.name}, {fault.__name__}: exit code {code}")
        return code == 0


def differing(expected: Path, got: Path) -> Iterator[str]:
    """List differences of a run directory from that of the undisturbed run."""
    for file in FILES:
        if (expected / file).read_bytes() != (got / file).read_bytes():
            yield f"{file} differs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged checkpoints that are skipped
        trees = [ft.Checkpoints(each).restore("latest", types=TYPES)[0] for each in (expected, got)]
    # The states of listeners hold only rows that are not written yet: their files were compared.
    parts = [{"train": each.train, "loop": each.loop} for each in trees]
    yield from map(str, tree.diff(*parts)[:5])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    torture = Torture(Path(tempfile.mkdtemp(prefix="functrain-torture-")), arguments.seed)
    print(f"seed {torture.seed}, in {torture.place}", flush=True)
    deadline, number = time.monotonic() + 60 * arguments.minutes, 0
    while time.monotonic() < deadline:
        torture.round(number, most=8)
        number += 1
    print(number, "rounds:", dict(torture.counts), *torture.problems, sep="\n")
    return 1 if torture.problems else 0


if __name__ == "__main__":
    sys.exit(main())
