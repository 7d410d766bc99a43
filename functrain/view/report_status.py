"""Whether a run has ended, and why, judged by its directory."""

from __future__ import annotations

import math

import attrs

from functrain.errors import FunctrainError
from functrain.training.limits import Limits, Position
from functrain.view.report_facts import Facts


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
    until = facts.config.get("fit", {}).get("until") if _has_fit(facts) else None
    step = f"at step {facts.newest.step:,}" if facts.newest.step is not None else "at some step"
    if until is None:
        return Status("saved", f"{step}; its planned length is unknown", True)
    try:
        ending = Limits.of(until).reached(_position(facts))
    except FunctrainError as error:
        return Status("saved", f"{step}; planned length: {until} ({error})", True)
    if ending is not None:
        return Status("finished", ending.detail, True)
    return Status("not finished", f"saved {step}; planned length: {_words(until)}", False)


def _has_fit(facts: Facts) -> bool:
    return isinstance(facts.config.get("fit"), dict)


def _position(facts: Facts) -> Position:
    counts = {
        name: int(facts.values.get(f"train.counters.{name}") or 0)
        for name in ("step", "samples", "epoch")
    }
    seconds = facts.info.get("seconds")
    known = isinstance(seconds, float) and math.isfinite(seconds)
    return Position(**counts, minutes=seconds / 60 if known and seconds else 0.0)


def _words(until: object) -> str:
    return " or ".join(map(str, until)) if isinstance(until, list) else str(until)
