"""What a path on the command line means: a run, one of its checkpoints, or a checkpoint."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from functrain.checkpoint import Checkpoints, Manifest, read_manifest, verify
from functrain.checkpoint.format.manifest import MANIFEST
from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.retention import Best
from functrain.checkpoint.storage.commit import present
from functrain.cli.run_directory import FILE_NAME
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointSkippedWarning,
    ConfigurationError,
    NoCheckpointError,
)
from functrain.errors.warning import warn

_MODES = ("min", "max")
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
    """Return what "best" means: what was asked for, else what the run itself went by.

    Args:
        directory: of the run.
        monitor: the metric, if it was given.
        mode: ``min`` or ``max``, if it was given.

    Returns:
        ``monitor`` and ``mode`` for :class:`~functrain.checkpoint.Checkpoints`. The mode is
        ``None`` where metric and name have to say it.

    Raises:
        ConfigurationError: the mode is another word.
    """
    if mode not in (None, "min", "max"):
        raise ConfigurationError(f"--mode {mode}: expected min or max")
    own = _configured(directory) or _recorded(directory) or {"monitor": "loss"}
    # A mode is that of its metric, and of no other.
    same = monitor is None or monitor == own["monitor"]
    return {
        "monitor": monitor or own["monitor"],
        "mode": mode or (own.get("mode") if same else None),
    }


def best_step(entries: Mapping[int, Entry], by: Mapping[str, Any], asked: bool) -> int | None:
    """Return the step of the best checkpoint, if there is one.

    Args:
        entries: what the checkpoints say of themselves.
        by: ``monitor`` and ``mode``, see :func:`monitored`.
        asked: whether somebody asked for it; if not, a metric of which nothing says what is best
            has none.

    Raises:
        ConfigurationError: it was asked for, and nothing says whether less or more is better.
    """
    rule = Best(by["monitor"], by["mode"])
    if not asked and rule.direction(entries) is None:
        return None
    return next(iter(rule.ranked(entries)), None)


def _configured(directory: Path) -> dict[str, Any]:
    """What the configuration of a run says, of those by ``functrain train``."""
    try:
        config = yaml.safe_load((directory / FILE_NAME).read_bytes())
        found = config["checkpoints"]
        mode = found.get("mode")
        return {"monitor": str(found["monitor"]), "mode": mode if mode in _MODES else None}
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return {}


def _recorded(directory: Path) -> dict[str, Any]:
    """What the newest checkpoint says that the run went by."""
    try:
        entries = Checkpoints(directory).entries() if directory.is_dir() else {}
    except OSError:
        return {}
    said = [entries[step].monitored for step in sorted(entries) if entries[step].monitored]
    found = dict(said[-1]) if said else {}
    if not isinstance(found.get("monitor"), str):
        return {}
    return {
        "monitor": found["monitor"],
        "mode": found.get("mode") if found.get("mode") in _MODES else None,
    }


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
