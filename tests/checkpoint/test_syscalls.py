"""Row 35: killed at every system call of saving, replacing, letting go and resuming.

A killed process loses nothing that the system has taken, so that the directory is as it was left.
Every call that functrain makes through Python's ``os`` is tried with a shim; every call that the
kernel sees, with strace, in the long form (``FUNCTRAIN_EXAMPLES=long``).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crashes.kill import killed
from crashes.operations import Mark
from crashes.place import LONG, say
from crashes.scenarios import SCENARIOS, Scenario, check_one, one, sample
from models import CASES

import functrain as ft
from functrain import tree
from functrain.checkpoint import save

STEPS = 6
# strace injects at these; the others change no file.
TRACED = (
    "%file,write,pwrite64,fsync,fdatasync,fallocate,ftruncate,close,flock,fcntl,getdents64,"
    "preadv,pread64,fstat"
)
LARGE = Scenario(
    "blocks",
    one(4, 1_200_000),
    lambda root, _: save(root / "weights", sample(5, 1_200_000), overwrite=True),
    check_one,
)
pytestmark = [
    pytest.mark.row(35),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]


class Saying:
    """Stands in for the recorder of a scenario; writes what is said to a pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.write = descriptor, os.write

    def mark(self, text: str, value: int) -> None:
        self.write(self.descriptor, f"{text} {value}\n".encode())


Killing = Callable[[Callable[[], Any]], bool]


def life(scenario: Scenario, place: Path, killing: Killing) -> bool:
    """Carry out a scenario in a process that is killed, and check what is left.

    Returns:
        Whether it was killed before it was done.
    """
    place.mkdir()
    there = scenario.prepare(place)
    reading, writing = os.pipe()
    try:
        died = killing(lambda: scenario.act(place, Saying(writing)))  # type: ignore[arg-type]
        os.close(writing)
        with os.fdopen(reading, closefd=False) as pipe:
            lines = [line.split() for line in pipe]
    finally:
        os.close(reading)
    said = [Mark(text, int(value)) for text, value in lines]
    if scenario is LARGE and not said:
        said = [Mark("begun", 5)]
    before = [] if there is None else [Mark("returned", there)]
    scenario.check(place, (*before, *said))
    shutil.rmtree(place)
    return died


@pytest.mark.sweep
@pytest.mark.parametrize("scenario", [*SCENARIOS, LARGE], ids=lambda scenario: scenario.name)
def test_killed_at_every_call(
    scenario: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    died = True
    for nth in range(1, 10_000):
        torn = scenario is LARGE and nth % 2 == 0
        died = life(scenario, tmp_path / "run", partial(killed, nth=nth, torn=torn))
        if not died:
            break
    assert not died
    say(capsys, f"{scenario.name}: killed at {nth - 1} calls")
    assert nth > 20


# -- a run that is resumed ---------------------------------------------------------------------


class Stopping:
    """Ends a run after a step."""

    def on_batch_end(self, event: Any) -> ft.Stop | None:
        return ft.Stop() if event.state.counters.step >= 3 else None


def train(program: ft.Program, case: Any, directory: Path, *listeners: Any) -> ft.Run:
    return ft.fit(
        program,
        [case.batch(seed, 3) for seed in range(4)],
        until=f"{STEPS} steps",
        eval_data=[case.batch(100, 4)],
        eval_every="3 steps",
        save_every="2 steps",
        directory=ft.Checkpoints(directory, keep_last=1),
        listeners=list(listeners),
    )


def test_a_resumed_run_killed_at_every_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[0]
    program = case.program(ft.optim.SGD(lr=0.01, momentum=0.9))
    straight = train(program, case, tmp_path / "straight")
    lines = (tmp_path / "straight" / "metrics.jsonl").read_bytes()
    train(program, case, tmp_path / "half", Stopping())
    place, stride, kills, died = tmp_path / "resumed", 1 if LONG else 11, 0, True
    for nth in range(1, 10_000, stride):
        shutil.copytree(tmp_path / "half", place)
        died = killed(lambda: train(program, case, place), nth)
        kills += died
        resumed = train(program, case, place)
        assert tree.diff(straight.state, resumed.state) == [], nth
        assert (place / "metrics.jsonl").read_bytes() == lines
        shutil.rmtree(place)
        if not died:
            break
    assert not died
    say(capsys, f"a resumed run: killed at {kills} of {nth} calls")
    assert nth > 100


# -- with strace -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strace() -> str:
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    if not LONG:
        pytest.skip("in the long form only (FUNCTRAIN_EXAMPLES=long)")
    traced = subprocess.run([program, "true"], capture_output=True)
    if traced.returncode:
        pytest.skip("processes cannot be traced here")
    return program


def traced(strace: str, work: Callable[[], Any], *options: str) -> tuple[bool, str]:
    """Carry out some work in a process that is traced: (whether it was killed, what was said)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        work()
        os._exit(0)
    tracer = subprocess.Popen(
        [strace, "-f", "-p", str(child), *options], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    try:
        while "attached" not in (line := tracer.stderr.readline()):
            assert line, "strace ended"
        os.write(writing, b"x")
        said = tracer.stderr.read()
    finally:
        _, status = os.waitpid(child, 0)
        tracer.wait()
        tracer.stderr.close()
        os.close(reading)
        os.close(writing)
    died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert died or os.waitstatus_to_exitcode(status) == 0
    return died, said


def killed_by(strace: str, work: Callable[[], Any], *, call: str, nth: int) -> bool:
    """Kill a process as it enters a system call for the n-th time."""
    injected = f"inject={call}:signal=KILL:when={nth}"
    return traced(strace, work, "-e", f"trace={call}", "-e", injected)[0]


def calls_made(strace: str, scenario: Scenario, place: Path) -> list[str]:
    """The names of the system calls of a scenario."""
    said: list[str] = []

    def watched(work: Callable[[], Any]) -> bool:
        died, text = traced(strace, work, "-e", f"trace={TRACED}")
        said.append(text)
        return died

    assert not life(scenario, place, watched)
    return sorted(set(re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", said[0], re.MULTILINE)))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [*SCENARIOS, LARGE], ids=lambda scenario: scenario.name)
def test_killed_at_every_call_of_the_kernel(
    scenario: Scenario, strace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills, calls = 0, calls_made(strace, scenario, tmp_path / "run")
    for call in calls:
        nth, died = 0, True
        while died:
            nth += 1
            died = life(scenario, tmp_path / "run", partial(killed_by, strace, call=call, nth=nth))
            kills += died
    say(capsys, f"{scenario.name}: killed at {kills} calls of the kernel: {', '.join(calls)}")
    assert kills > 50
    assert {"openat", "pwrite64", "fsync", "rename", "close"} <= {*calls}
