"""Problems of a run, and anything else worth a look, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from functrain.plotting.decimation import drawable
from functrain.plotting.metric_names import POSITIONS
from functrain.view.report_facts import Facts, set_aside


def notices(facts: Facts) -> list[str]:
    """Return all notices, the most important first; none if nothing was unusual."""
    return [*facts.problems, *_counted(facts), *_nonfinite(facts), *_unsaved(facts), *_moved(facts)]


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
        if name in POSITIONS or drawable(sum(values)):
            continue
        bad = [
            row
            for row, value in zip(facts.columns.rows[name], values, strict=True)
            if not drawable(value)
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
