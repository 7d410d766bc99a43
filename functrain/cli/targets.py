"""What a path on the command line means: a run, one of its checkpoints, or a checkpoint."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import attrs
import yaml

from functrain.checkpoint import Checkpoints, Manifest, read_manifest, verify
from functrain.checkpoint.format.manifest import MANIFEST
from functrain.checkpoint.storage.commit import present
from functrain.cli.run_directory import FILE_NAME
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointSkippedWarning,
    ConfigurationError,
    NoCheckpointError,
)
from functrain.warning import warn

_NAME = re.compile(r"step-(\d+)")
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


def is_checkpoint(path: Path) -> bool:
    """Whether a path is that of one checkpoint, be it damaged, rather than of a run."""
    place = present(path.absolute())
    return place.is_dir() and (
        (place / MANIFEST).exists() or _NAME.fullmatch(path.name) is not None
    )


def store_of(directory: Path, **options: Any) -> Checkpoints:
    """The checkpoints of a run that exists.

    Args:
        directory: of the run.
        options: of :class:`~functrain.checkpoint.Checkpoints`.

    Raises:
        NoCheckpointError: there is no checkpoint.
    """
    store = Checkpoints(directory, **options)
    if not directory.is_dir() or not store.steps():
        raise NoCheckpointError(
            errno.ENOENT, f"there is no run with checkpoints in {directory}, and no checkpoint"
        )
    return store


def monitored(directory: Path, monitor: str | None, mode: str | None) -> dict[str, Any]:
    """What "best" means: what was asked for, else what the run's configuration says.

    Args:
        directory: of the run.
        monitor: the metric, if it was given.
        mode: ``min`` or ``max``, if it was given.

    Returns:
        ``monitor`` and ``mode`` for :class:`~functrain.checkpoint.Checkpoints`.
    """
    if mode not in (None, "min", "max"):
        raise ConfigurationError(f"--mode {mode}: expected min or max")
    try:
        config = yaml.safe_load((directory / FILE_NAME).read_bytes())
        found = config["checkpoints"]
        told = {"monitor": str(found["monitor"])}
        told |= {"mode": found["mode"]} if found.get("mode") in ("min", "max") else {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        told = {}
    asked = {"monitor": monitor, "mode": mode}
    return {**told, **{name: value for name, value in asked.items() if value is not None}}


def paths_of(path: Path) -> list[Path]:
    """All checkpoints of a run in order, or the one that was named.

    Raises:
        NoCheckpointError: there is none.
    """
    if is_checkpoint(path):
        return [path.absolute()]
    store = store_of(path)
    return [store.path(step) for step in store.steps()]


def open_target(
    text: Path, step: int | None = None, best: bool = False, monitor: str | None = None
) -> Target:
    """The checkpoint that a path means.

    Args:
        text: a checkpoint, or a run, or ``RUN@STEP``, or ``RUN@best``. Of a run it is the newest
            one that verifies; damaged ones are passed over with a warning.
        step: the one of this step.
        best: the best one.
        monitor: the metric that says what is best.

    Raises:
        NoCheckpointError: there is none.
        CheckpointCorruptError: every one is damaged, or the one that was asked for.
    """
    match = _AT.fullmatch(str(text))
    if match is not None and not text.exists():
        asked = match["which"]
        return open_target(
            Path(match["run"]), None if asked == "best" else int(asked), asked == "best", monitor
        )
    if is_checkpoint(text):
        if step is not None or best:
            raise ConfigurationError(f"{text} is a checkpoint; --step and --best choose in a run")
        return Target(present(text.absolute()), read_manifest(text))
    store = store_of(text, **monitored(text, monitor, None))
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


def step_of(path: Path) -> int | None:
    """The step that a checkpoint's name tells.

    Example:
        >>> step_of(Path("run/step-00000120")), step_of(Path("run"))
        (120, None)
    """
    match = _NAME.fullmatch(path.name)
    return None if match is None else int(match[1])


def check_step(path: Path, manifest: Manifest) -> Manifest:
    """Make sure that a checkpoint called after a step is that of the step.

    Raises:
        CheckpointCorruptError: it is not.
    """
    if step_of(path) not in (None, manifest.step):
        raise CheckpointCorruptError(f"{path} holds the checkpoint of step {manifest.step}")
    return manifest


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
