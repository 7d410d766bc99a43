"""``bisect``: narrow the first difference of two runs down to step, leaf and element."""

from __future__ import annotations

import contextlib
from pathlib import Path

import attrs

from functrain import tree
from functrain.checkpoint import Checkpoints
from functrain.errors import CheckpointCorruptError, NoCheckpointError
from functrain.errors.paths import expanded
from functrain.testing.bisect.records import common, records
from functrain.testing.bisect.replay import Recorder, replay
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
    directories = [side.recorded for side in (ours, theirs) if side.recorded is not None]
    found_records = records(*directories) if len(directories) == 2 else []
    steps = [record.step for record in found_records if record.step is not None]
    if len(directories) == 2 and not found_records and _ended_alike(directories):
        return None
    bound = min(steps, default=None)
    start = _last_equal(directories, bound) if len(directories) == 2 else None
    found = _replayed(ours, theirs, start, bound)
    if found is None and bound is not None:
        found = Parting(bound, "records", "", "")
    texts = tuple(record.text for record in found_records)
    return found and attrs.evolve(found, records=texts, start=start or 0)


def _ended_alike(directories: list[Path]) -> bool:
    one, other = (Checkpoints(directory).steps()[-1:] for directory in directories)
    return bool(one) and one == other


def _last_equal(directories: list[Path], bound: int | None) -> int | None:
    """Return the last step before the bound for which both have a valid checkpoint.

    Their states are equal there, because the first unequal ones set the bound.
    """
    both = [step for step, *_ in common(*directories) if bound is None or step < bound]
    stores = [Checkpoints(directory) for directory in directories]
    return next((step for step in reversed(both) if all(_is_valid(s, step) for s in stores)), None)


def _is_valid(store: Checkpoints, step: int) -> bool:
    try:
        store.verify(step)
    except (CheckpointCorruptError, NoCheckpointError):
        return False
    return True


def _replayed(ours: Side, theirs: Side, start: int | None, bound: int | None) -> Parting | None:
    """Repeat both runs and compare the first step that differs."""
    first = replay(ours, start, bound)
    second = replay(theirs, start, bound, first)
    longer = [step for step in first.hashes if step > max(second.hashes, default=0)]
    step = second.step if second.parted else min(longer, default=None)
    measured = _evaluations(first, second)
    if measured is not None and (step is None or measured.step < step):
        return measured
    if step is None:
        return None
    goes_on = step in first.hashes and step in second.hashes
    ending = second.ending if step in first.hashes else first.ending
    if not goes_on and not ending.startswith("nonfinite"):
        return Parting(step, "end", "", ending)
    if first.step != step:
        first = replay(ours, start, step)
    return compared(first, second, given=not goes_on) or Parting(step, "end", "", ending)


def _evaluations(first: Recorder, second: Recorder) -> Parting | None:
    """Return the first step that both evaluated with different results."""
    for step in sorted(first.evaluations.keys() & second.evaluations.keys()):
        ours, theirs = first.evaluations[step], second.evaluations[step]
        found = tree.diff(ours, theirs)
        if found:
            return parting(step, "evaluation", found)
    return None
