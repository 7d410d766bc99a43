"""Whether a run has ended, and why; and anything worth a look: judged by its directory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import attrs

from functrain.errors import FunctrainError
from functrain.plotting.metric_names import POSITIONS
from functrain.plotting.points import is_drawable
from functrain.training.limits import Limits, Position
from functrain.view.report_facts import Facts, set_aside


@attrs.frozen
class Status:
    """A word on a run's state, its reason, and whether the run went as planned."""

    word: str
    detail: str
    good: bool


def status_of(facts: Facts) -> Status:
    """Return the status of a run.

    A run directory does not record ``Run.reason``; the newest checkpoint and the configuration
    imply it.
    """
    if facts.newest is None:
        return Status("not saved", "there is no checkpoint that can be read", False)
    stop = facts.values.get("loop.early_stop.stop")
    if stop:
        return Status("stopped early", str(stop), True)
    fit = facts.config.get("fit")
    until = fit.get("until") if isinstance(fit, dict) else None
    step = f"at step {facts.newest.step:,}" if facts.newest.step is not None else "at some step"
    if until is None:
        return Status("saved", f"{step}; its planned length is unknown", True)
    try:
        ending = Limits.of(until).reached(_position(facts))
    except FunctrainError as error:
        return Status("saved", f"{step}; planned length: {until} ({error})", True)
    if ending is not None:
        return Status("finished", ending.detail, True)
    planned = " or ".join(map(str, until)) if isinstance(until, list) else until
    return Status("not finished", f"saved {step}; planned length: {planned}", False)


def notices(facts: Facts) -> list[str]:
    """Return all notices, the most important first; none if nothing was unusual."""
    return [*facts.problems, *_counted(facts), *_nonfinite(facts), *_unsaved(facts), *_moved(facts)]


def _position(facts: Facts) -> Position:
    counts = {
        name: int(facts.values.get(f"train.counters.{name}") or 0)
        for name in ("step", "samples", "epoch")
    }
    seconds = facts.info.get("seconds")
    known = isinstance(seconds, float) and math.isfinite(seconds)
    return Position(**counts, minutes=seconds / 60 if known and seconds else 0.0)


def _counted(facts: Facts) -> Iterator[str]:
    skipped = facts.values.get("train.counters.skipped") or 0
    empty = facts.values.get("train.counters.empty") or 0
    if skipped:
        yield f"updates skipped because of NaN or infinity: {skipped:,}"
    if empty:
        yield f"empty batches skipped: {empty:,}"


def _nonfinite(facts: Facts) -> Iterator[str]:
    steps = facts.columns.steps()
    for name, values in facts.columns.values.items():
        if name in POSITIONS or is_drawable(sum(values)):
            continue
        bad = [
            row
            for row, value in zip(facts.columns.rows[name], values, strict=True)
            if not is_drawable(value)
        ]
        if bad:
            where = "" if steps is None else f", first at step {steps[bad[0]]:,.0f}"
            times = "once" if len(bad) == 1 else f"{len(bad):,} times"
            yield f"{name} was NaN or infinite {times}{where}"


def _unsaved(facts: Facts) -> Iterator[str]:
    steps = facts.columns.values.get("step")
    saved = None if facts.newest is None else facts.newest.step
    if steps and saved is not None and steps[-1] > saved:
        yield (
            f"the log goes on to step {steps[-1]:,.0f}, the newest checkpoint is of step "
            f"{saved:,}; a resumed run repeats the steps between"
        )
    for name in set_aside(facts.directory):
        yield f"{name} holds steps that this run left behind when it went back"


def _moved(facts: Facts) -> Iterator[str]:
    """Report changes of the environment between checkpoints."""
    before: dict[str, Any] = {}
    for row in facts.checkpoints:
        info = None if row.manifest is None else row.manifest.info
        now = info.get("environment") if isinstance(info, dict) else None
        if not isinstance(now, dict):
            continue
        for name in now if before else ():
            if now[name] != before.get(name):
                yield f"from step {row.step} on {name} is {now[name]}, before {before.get(name)}"
        before = now
