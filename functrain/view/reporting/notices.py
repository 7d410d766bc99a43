"""What went wrong in a run, or is worth a look: in words, most telling first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from functrain.view.plotting.decimation import drawable
from functrain.view.plotting.progress import PLACES
from functrain.view.reporting.gathering import Facts, set_aside


def notices(facts: Facts) -> list[str]:
    """Everything to be said, empty for a run where nothing was unusual."""
    return [*facts.problems, *_counted(facts), *_nonfinite(facts), *_unsaved(facts), *_moved(facts)]


def _counted(facts: Facts) -> Iterator[str]:
    skipped = facts.values.get("train.counters.skipped") or 0
    empty = facts.values.get("train.counters.empty") or 0
    if skipped:
        yield f"updates skipped, because something in them was not finite: {skipped:,}"
    if empty:
        yield f"batches that were empty and passed over: {empty:,}"


def _nonfinite(facts: Facts) -> Iterator[str]:
    steps = facts.columns.values.get("step")
    for name, values in facts.columns.values.items():
        if name in PLACES or drawable(sum(values)):
            continue
        bad = [
            row
            for row, value in zip(facts.columns.rows[name], values, strict=True)
            if not drawable(value)
        ]
        if bad:
            known = steps is not None and len(steps) == facts.columns.length
            where = f", first at step {steps[bad[0]]:,.0f}" if known and steps else ""
            times = "once" if len(bad) == 1 else f"{len(bad):,} times"
            yield f"{name} was NaN or infinite {times}{where}"


def _unsaved(facts: Facts) -> Iterator[str]:
    steps = facts.columns.values.get("step")
    saved = None if facts.newest is None else facts.newest.step
    if steps and saved is not None and steps[-1] > saved:
        yield (
            f"the log goes on to step {steps[-1]:,.0f}, the newest checkpoint is of step "
            f"{saved:,}; a resumed run makes the steps between anew"
        )
    for name in set_aside(facts.directory):
        yield f"{name} holds an earlier end of this run"


def _moved(facts: Facts) -> Iterator[str]:
    """Where the environment is another one than in the checkpoint before."""
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
