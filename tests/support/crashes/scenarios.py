"""Scenarios: the actions of a writer before a crash, and the checks after it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from crashes import states as crashes_states
from crashes.log import Recorder
from crashes.operations import Log, Mark

from functrain import tree
from functrain.checkpoint import Checkpoints, load, save, verify
from functrain.errors import NoCheckpointError

LATER = 99
_OURS = re.compile(r"step-\d{8}|FORMAT|\.lock")


def sample(value: int, length: int = 150) -> Any:
    """The tree of a value: three files with the manifest, none of one sector."""
    return {
        "params": {"w": torch.full((length,), float(value)), "b": torch.arange(70) * value},
        "ema": {"w": torch.full((130,), value, dtype=torch.float64)},
        "step": value,
    }


@attrs.frozen
class Scenario:
    """A piece of a writer's life.

    Attributes:
        prepare: what was there before, durably; gets the directory.
        act: what is recorded; says through the recorder which value it begins to save, and when
            saving has returned.
        check: raises unless the directory is as it must be after a crash; gets what was said.
    """

    name: str
    prepare: Callable[[Path], int | None]
    act: Callable[[Path, Recorder], None]
    check: Callable[[Path, tuple[Mark, ...]], None]

    def record(self, root: Path) -> Log:
        """Carry it out, and see that nothing escaped the recorder."""
        root.mkdir()
        there = self.prepare(root)
        recorder = Recorder(root)
        if there is not None:
            recorder.mark("returned", there)
        with recorder.installed():
            self.act(root, recorder)
        assert crashes_states.final(recorder.log) == crashes_states.on_disk(root)
        return recorder.log


def promised(said: tuple[Mark, ...]) -> tuple[int | None, set[int]]:
    """(the value that must be there if there is one, all values that may be the newest)."""
    returned = [mark.value for mark in said if mark.text == "returned"]
    last = returned[-1] if returned else None
    begun = said[-1].value if said and said[-1].text == "begun" else None
    return last, {value for value in (last, begun) if value is not None}


# -- checkpoints of a run --------------------------------------------------------------------


def store(root: Path, **options: Any) -> Checkpoints:
    """The run directory of a scenario."""
    return Checkpoints(root / "run", **{"keep_last": 2, "keep_best": 1} | options)


def saving(*values: int, **options: Any) -> Callable[[Path, Recorder], None]:
    """Saves one value after the other."""

    def act(root: Path, recorder: Recorder) -> None:
        run = store(root, **options)
        for value in values:
            recorder.mark("begun", value)
            run.save(sample(value), step=value, metrics={"loss": float(abs(value - 1))})
            recorder.mark("returned", value)

    return act


def saved(*values: int) -> Callable[[Path], int | None]:
    """Saved one value after the other, some time ago."""

    def prepare(root: Path) -> int | None:
        for value in values:
            store(root, keep_last=None).save(
                sample(value), step=value, metrics={"loss": float(abs(value - 1))}
            )
        return values[-1] if values else None

    return prepare


def check_run(root: Path, said: tuple[Mark, ...]) -> None:
    """An old or the new checkpoint, each one listed sound; saving goes on and clears away."""
    last, allowed = promised(said)
    run = store(root, keep_last=1, keep_best=0)
    try:
        loaded, manifest = run.restore()
    except NoCheckpointError:
        assert last is None, f"{last} was saved, and there is nothing"
    else:
        assert manifest.step in allowed, f"{manifest.step} was found, not one of {allowed}"
        assert tree.equal(loaded, sample(manifest.step))
    for step in run.steps():
        verify(run.path(step))
    run.save(sample(LATER), step=LATER)
    assert tree.equal(run.restore("latest")[0], sample(LATER))
    assert run.steps() == [LATER]
    litter = [name for name in os.listdir(run.directory) if not _OURS.fullmatch(name)]
    assert litter == []


# -- one directory, replaced in its place ------------------------------------------------------


def replacing(*values: int, length: int = 150) -> Callable[[Path, Recorder], None]:
    def act(root: Path, recorder: Recorder) -> None:
        for value in values:
            recorder.mark("begun", value)
            save(root / "weights", sample(value, length), overwrite=True)
            recorder.mark("returned", value)

    return act


def one(value: int | None, length: int = 150) -> Callable[[Path], int | None]:
    def prepare(root: Path) -> int | None:
        if value is not None:
            save(root / "weights", sample(value, length))
        return value

    return prepare


def check_one(root: Path, said: tuple[Mark, ...]) -> None:
    """The old or the new one is at its path; saving there goes on and clears away."""
    last, allowed = promised(said)
    place = root / "weights"
    try:
        loaded = load(place)
    except NoCheckpointError:
        assert last is None, f"{last} was saved, and there is nothing"
    else:
        assert loaded["step"] in allowed, f"{loaded['step']} was found, not one of {allowed}"
        assert tree.equal(loaded, sample(loaded["step"], loaded["params"]["w"].numel()))
    save(place, sample(LATER), overwrite=True)
    assert tree.equal(load(place), sample(LATER))
    assert os.listdir(root) == ["weights"]


def _pruning(root: Path, recorder: Recorder) -> None:
    store(root, keep_last=1, keep_best=1).prune()


def _larger(root: Path, recorder: Recorder) -> None:
    replacing(5, 6, length=1_200_000)(root, recorder)


SCENARIOS = (
    Scenario("the first", saved(), saving(5), check_run),
    Scenario("the next", saved(1, 2), saving(5), check_run),
    Scenario("the same step", saved(1, 5), saving(5), check_run),
    Scenario("retention", saved(1, 2), saving(5, 6, 7, keep_last=1), check_run),
    Scenario("pruning", saved(1, 2, 3, 4), _pruning, check_run),
    Scenario("one new", one(None), replacing(5), check_one),
    Scenario("one replaced", one(4), replacing(5, 6), check_one),
)
LARGE = Scenario("blocks", one(4, 1_200_000), _larger, check_one)
