"""``bisect``: narrow the first difference of two runs down to step, leaf and element."""

from __future__ import annotations

import contextlib
from pathlib import Path

import attrs

from functrain import tree
from functrain.checkpoint import Checkpoints
from functrain.errors import CheckpointCorruptError, NoCheckpointError
from functrain.errors.paths import expanded
from functrain.testing.bisect.records import Record, common, records
from functrain.testing.bisect.replay import Tracer, capture, trace
from functrain.testing.bisect.run import Make, Side, made_again
from functrain.testing.bisect.steps import Parting, compared, parting


def bisect(first: Make | str | Path, second: Make | str | Path) -> Parting | None:
    """Find the first step at which two runs differ, and the first leaf and element there.

    Digests, logs and checkpoints of the runs narrow down the step. Then both runs are repeated from
    the nearest common checkpoint before it, or from the start, without listeners. The first step
    that differs is compared part by part, in the order in which a step happens. Nothing is written
    to the run directories.

    Args:
        first: a function that returns new arguments of ``fit`` at each call:
            ``dict(program=..., data=..., until=..., directory=...)``; ``directory``, where the run
            was written, may be left out. Or the directory of a run of ``functrain train``.
        second: the other run.

    Returns:
        Where they diverge; ``None`` if nothing differs.

    Raises:
        ConfigurationError: an argument is neither, or the directory has no configuration.
        CheckpointMismatchError: a program does not fit the checkpoints of its run.

    Example:
        >>> import functrain as ft, torch
        >>> def make(decay):
        ...     loss = lambda model, batch: model(batch).square().mean()
        ...     optimizer = ft.optim.AdamW(lr=0.1, weight_decay=decay)
        ...     program = ft.program(lambda: torch.nn.Linear(2, 1), loss, optimizer)
        ...     return dict(program=program, data=[torch.ones(4, 2)], until="5 steps")
        >>> found = bisect(lambda: make(0.0), lambda: make(0.1))
        >>> found.step, found.part, found.leaf
        (1, 'params', 'params.weight')
        >>> bisect(lambda: make(0.1), lambda: make(0.1)) is None
        True
    """
    with contextlib.ExitStack() as stack:
        makes = (
            stack.enter_context(made_again(expanded(run))) if isinstance(run, str | Path) else run
            for run in (first, second)
        )
        return _first_difference(*map(Side.of, makes))


def _first_difference(ours: Side, theirs: Side) -> Parting | None:
    found_records = _from_records(ours, theirs)
    if found_records is not None and not found_records:
        return None
    steps = (record.step for record in found_records or ())
    bound = min((step for step in steps if step is not None), default=None)
    start = _start(ours, theirs, bound)
    found = _replayed(ours, theirs, start, bound)
    if found is None and bound is not None:
        found = Parting(bound, "records", "", "")
    texts = tuple(record.text for record in found_records or ())
    return found and attrs.evolve(found, records=texts, start=start or 0)


def _from_records(ours: Side, theirs: Side) -> list[Record] | None:
    """Return the differences in the records; empty if they agree, ``None`` if there are none."""
    first, second = ours.recorded, theirs.recorded
    if first is None or second is None:
        return None
    found = records(first, second)
    if found:
        return found
    one, other = (Checkpoints(directory).steps()[-1:] for directory in (first, second))
    return [] if one and one == other else None


def _start(ours: Side, theirs: Side, bound: int | None) -> int | None:
    """Return the last step before the bound for which both have a valid checkpoint.

    Their states are equal there, because the first unequal ones set the bound.
    """
    first, second = ours.recorded, theirs.recorded
    if first is None or second is None:
        return None
    both = [step for step, *_ in common(first, second)]
    same = [step for step in both if bound is None or step < bound]
    stores = [Checkpoints(directory) for directory in (first, second)]
    return next((step for step in reversed(same) if all(_is_valid(s, step) for s in stores)), None)


def _is_valid(store: Checkpoints, step: int) -> bool:
    try:
        store.verify(step)
    except (CheckpointCorruptError, NoCheckpointError):
        return False
    return True


def _replayed(ours: Side, theirs: Side, start: int | None, bound: int | None) -> Parting | None:
    """Repeat both runs and compare the first step that differs."""
    first = trace(ours, start, bound)
    second = trace(theirs, start, bound, first)
    step = next((step for step in second.steps if second.parted(step)), None)
    measured = _evaluations(first, second)
    if measured is not None and (step is None or measured.step < step):
        return measured
    ended = second if step is None else first
    step = _one_more(first, second) if step is None else step
    if step is None:
        return None
    goes_on = step in first.steps and step in second.steps
    if not goes_on and not ended.ending.startswith("nonfinite"):
        return Parting(step, "end", "", ended.ending)
    one, other = (capture(side, start, step) for side in (ours, theirs))
    return compared(one, other, given=not goes_on) or Parting(step, "end", "", ended.ending)


def _evaluations(first: Tracer, second: Tracer) -> Parting | None:
    """Return the first step that both evaluated with different results."""
    for step in sorted(first.evaluations.keys() & second.evaluations.keys()):
        ours, theirs = first.evaluations[step], second.evaluations[step]
        found = tree.diff(ours, theirs)
        if found:
            return parting(step, "evaluation", found, ours, theirs)
    return None


def _one_more(first: Tracer, second: Tracer) -> int | None:
    """Return the first step of the first run after the end of the second, if any."""
    more = sorted(set(first.steps) - set(second.steps))
    return next((step for step in more if second.first is None or step > second.first), None)
