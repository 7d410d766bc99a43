"""Resolve a path on the command line: a run, one of its checkpoints, or a checkpoint."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import attrs

from functrain.checkpoint import Checkpoints, Manifest, read_manifest, verify
from functrain.checkpoint.storage.commit import present
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointSkippedWarning,
    ConfigurationError,
    NoCheckpointError,
)
from functrain.errors.base import warn
from functrain.view.run_checkpoints import check_step, is_checkpoint, monitored, store_of

_AT = re.compile(r"(?P<run>.+)@(?P<which>\d+|best)")


@attrs.frozen(eq=False)
class ChosenCheckpoint:
    """A checkpoint on the command line, or the newest one of a run.

    Attributes:
        run: the run directory, if the argument was a run without a step.
    """

    path: Path
    manifest: Manifest
    run: Path | None = None


def open_checkpoint(
    text: Path,
    step: int | None = None,
    best: bool = False,
    monitor: str | None = None,
    mode: str | None = None,
) -> ChosenCheckpoint:
    """Open the checkpoint that a path denotes.

    ``text`` is a checkpoint, a run, ``RUN@STEP`` or ``RUN@best``. A run stands for its newest
    checkpoint that verifies; damaged ones are skipped with a warning.
    """
    match = _AT.fullmatch(str(text))
    if match is not None and not text.exists():
        text, best = Path(match["run"]), match["which"] == "best"
        step = None if best else int(match["which"])
    if is_checkpoint(text):
        if step is not None or best:
            raise ConfigurationError(f"{text} is a checkpoint; --step and --best choose in a run")
        return ChosenCheckpoint(present(text.absolute()), read_manifest(text))
    store = store_of(text, **monitored(text, monitor, mode))
    if best:
        step = store.best()
        if step is None:
            raise NoCheckpointError(
                errno.ENOENT,
                f"no checkpoint in {text} has a finite metric {store.monitor!r}; see functrain ls",
            )
    if step is not None:
        return _of_step(store, step)
    return _newest(store, text)


def _of_step(store: Checkpoints, step: int) -> ChosenCheckpoint:
    if step not in store.steps():
        steps = store.steps()
        near = min(steps, key=lambda other: abs(other - step))
        raise NoCheckpointError(
            errno.ENOENT,
            f"{store.directory} has no checkpoint of step {step}; the nearest is of step {near}",
        )
    path = store.path(step)
    return ChosenCheckpoint(present(path), check_step(path, read_manifest(path)))


def _newest(store: Checkpoints, run: Path) -> ChosenCheckpoint:
    damages = []
    for step in reversed(store.steps()):
        path = store.path(step)
        try:
            return ChosenCheckpoint(present(path), check_step(path, verify(path)), run)
        except CheckpointCorruptError as damage:
            damages.append(str(damage))
            warn(f"skipped {path}: {damage}", CheckpointSkippedWarning)
    listed = "\n".join(f"  {damage}" for damage in damages)
    raise CheckpointCorruptError(f"every checkpoint in {run} is damaged:\n{listed}")
