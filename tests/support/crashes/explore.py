"""Recovery from the states that a crash may leave of a scenario, one after the other."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from crashes import states as crashes_states
from crashes.operations import Log
from crashes.scenarios import Scenario, check_one, promised, replacing, saving, store
from crashes.states import Point

from functrain.checkpoint import load
from functrain.errors import NoCheckpointError


def explore(scenario: Scenario, log: Log, place: Path, wanted: int, seed: int = 0) -> int:
    """Recover from states that a crash may leave, each another one.

    Args:
        scenario: says what must be found.
        log: what was recorded of it.
        place: does not exist; holds one state after the other.
        wanted: how many; fewer where no more are found.
        seed: chooses them.

    Returns:
        How many there were.

    Raises:
        AssertionError: recovery failed; with the state in its notes.
    """
    seen: set[bytes] = set()
    for round_ in range(12):
        before = len(seen)
        for state, point in _drawn(log, wanted - before, random.Random(seed * 100 + round_), seen):
            crashes_states.materialise(state, place)
            try:
                scenario.check(place, point.said)
            except Exception as error:
                listed = {name: None if each is None else len(each) for name, each in state.items()}
                error.add_note(f"{scenario.name}: {point.said[-2:]} {listed}")
                raise
            finally:
                shutil.rmtree(place)
        if len(seen) >= wanted:
            break
    return len(seen)


def _drawn(
    log: Log, wanted: int, chance: random.Random, seen: set[bytes]
) -> Iterator[tuple[crashes_states.State, Point]]:
    number = len(log.operations)
    left = wanted
    for index, point in enumerate(crashes_states.points(log)):
        tries = -(-left // (number - index))
        for state in crashes_states.states(point.disk, chance, tries):
            mark = crashes_states.digest(state) + repr(promised(point.said)).encode()
            if mark not in seen:
                seen.add(mark)
                left -= 1
                yield state, point


def again(scenario: Scenario, log: Log, chance: random.Random) -> Scenario:
    """Going on after one of the crashes of a scenario."""
    number = chance.randrange(len(log.operations))
    point = next(itertools.islice(crashes_states.points(log), number, None))
    *_, state = crashes_states.states(point.disk, chance, 9)

    def prepare(root: Path) -> int | None:
        crashes_states.materialise(state, root)
        with contextlib.suppress(NoCheckpointError):
            if scenario.check is check_one:
                return int(load(root / "weights")["step"])
            return store(root).restore()[1].step
        return None

    act = replacing(8) if scenario.check is check_one else saving(8, keep_last=1)
    return Scenario(f"after {scenario.name}", prepare, act, scenario.check)
