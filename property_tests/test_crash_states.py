"""The law of power cuts: the old or the new checkpoint loads, however much unsynced data is lost.

Each operation of a writer is recorded, and from the record come the states in which a crash may
leave the directory (``tests/support/crashes/states.py`` says which). Recovery is tried from
each: what was saved loads, bit by bit; what is listed verifies; saving goes on and leaves no
litter.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crashes.explore import again, explore
from crashes.log import Recorder
from crashes.place import LONG, scratch
from crashes.scenarios import LARGE, SCENARIOS, Scenario
from crashes.states import digest, materialise, points, states
from models import CASES

import functrain as ft
from functrain import tree

STEPS = 6


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch() as directory:
        yield directory


@pytest.mark.row(35)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_recovery_from_every_state(scenario: Scenario, place: Path) -> None:
    log = scenario.record(place / "written")
    count = explore(scenario, log, place / "crashed", 3500 if LONG else 150)
    assert count >= (400 if LONG else 40)


@pytest.mark.row(35)
def test_recovery_of_files_written_in_blocks(place: Path) -> None:
    log = LARGE.record(place / "written")
    count = explore(LARGE, log, place / "crashed", 300 if LONG else 20)
    assert count >= (100 if LONG else 10)


@pytest.mark.row(35)
def test_a_crash_during_recovery(place: Path) -> None:
    count = 0
    for scenario in SCENARIOS:
        log = scenario.record(place / "written")
        for seed in range(30 if LONG else 3):
            second = again(scenario, log, random.Random(seed))
            twice = second.record(place / "again")
            count += explore(second, twice, place / "crashed", 40 if LONG else 8, seed)
            shutil.rmtree(place / "again")
        shutil.rmtree(place / "written")
    assert count >= (4000 if LONG else 80)


def train(program: ft.Program, case: Any, directory: Path) -> ft.Run:
    return ft.fit(
        program,
        [case.batch(seed, 3) for seed in range(4)],
        until=f"{STEPS} steps",
        eval_data=[case.batch(100, 4)],
        eval_every="3 steps",
        save_every="2 steps",
        directory=ft.Checkpoints(directory, keep_last=1),
    )


@pytest.mark.row(32)
def test_a_run_resumes_as_if_uninterrupted(place: Path) -> None:
    """Its log is recorded too: no checkpoint may exist before the rows that it includes."""
    case = CASES[0]
    program = case.program(ft.optim.SGD(lr=0.01, momentum=0.9))
    run = place / "run"
    run.mkdir()
    recorder = Recorder(run, watched=("metrics.jsonl",))
    with recorder.installed():
        straight = train(program, case, run)
    lines = (run / "metrics.jsonl").read_bytes()
    chance, seen = random.Random(0), set()
    for index, point in enumerate(points(recorder.log)):
        if not LONG and index % 6:
            continue
        drawn = list(states(point.disk, chance, 12))
        for state in chance.sample(drawn, 5 if LONG else 1):
            if digest(state) in seen:
                continue
            seen.add(digest(state))
            materialise(state, place / "crashed")
            resumed = train(program, case, place / "crashed")
            assert tree.diff(straight.state, resumed.state) == [], index
            assert (place / "crashed" / "metrics.jsonl").read_bytes() == lines
            shutil.rmtree(place / "crashed")
    assert len(seen) >= (100 if LONG else 10)
