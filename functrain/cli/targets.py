"""What a path on the command line means: a run, one of its checkpoints, or a checkpoint."""

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
from functrain.errors.warning import warn
from functrain.view.run_checkpoints import check_step, is_checkpoint, monitored, store_of

_AT = re.compile(r"(?P<run>.+)@(?P<which>\d+|best)")


@attrs.frozen(eq=False)
class Target:
    """A checkpoint that was named, and the run it stands for where a run was named.

    Attributes:
        path: the checkpoint's directory.
        manifest: what it says about itself.
        run: the run directory, if that was named without saying which of its checkpoints.
    """

    path: Path
    manifest: Manifest
    run: Path | None = None


def open_target(
    text: Path,
    step: int | None = None,
    best: bool = False,
    monitor: str | None = None,
    mode: str | None = None,
) -> Target:
    """The checkpoint that a path means.

    Args:
        text: a checkpoint, or a run, or ``RUN@STEP``, or ``RUN@best``. Of a run it is the newest
            one that verifies; damaged ones are passed over with a warning.
        step: the one of this step.
        best: the best one.
        monitor: the metric that says what is best.
        mode: ``min`` or ``max`` of it.

    Raises:
        NoCheckpointError: there is none.
        ConfigurationError: nothing says whether less or more of the metric is better.
        CheckpointCorruptError: every one is damaged, or the one that was asked for.
    """
    match = _AT.fullmatch(str(text))
    if match is not None and not text.exists():
        asked = match["which"]
        return open_target(
            Path(match["run"]),
            None if asked == "best" else int(asked),
            asked == "best",
            monitor,
            mode,
        )
    if is_checkpoint(text):
        if step is not None or best:
            raise ConfigurationError(f"{text} is a checkpoint; --step and --best choose in a run")
        return Target(present(text.absolute()), read_manifest(text))
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


def _of_step(store: Checkpoints, step: int) -> Target:
    if step not in store.steps():
        steps = store.steps()
        near = min(steps, key=lambda other: abs(other - step))
        raise NoCheckpointError(
            errno.ENOENT,
            f"{store.directory} has no checkpoint of step {step}; the nearest is of step {near}",
        )
    path = store.path(step)
    return Target(present(path), check_step(path, read_manifest(path)))


def _newest(store: Checkpoints, run: Path) -> Target:
    damages = []
    for step in reversed(store.steps()):
        path = store.path(step)
        try:
            return Target(present(path), check_step(path, verify(path)), run)
        except CheckpointCorruptError as damage:
            damages.append(str(damage))
            warn(f"passed over {path}: {damage}", CheckpointSkippedWarning)
    listed = "\n".join(f"  {damage}" for damage in damages)
    raise CheckpointCorruptError(f"every checkpoint in {run} is damaged:\n{listed}")
