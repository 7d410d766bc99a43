"""The checkpoints of a run: what their manifests say, and which of them is best."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from functrain.checkpoint import Checkpoints, Manifest, read_manifest
from functrain.checkpoint.format.manifest import MANIFEST
from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.retention import Best
from functrain.checkpoint.run_directory import STEP_NAME
from functrain.checkpoint.storage.commit import present
from functrain.errors import (
    CheckpointCorruptError,
    ConfigurationError,
    FunctrainError,
    NoCheckpointError,
)

# Where ``functrain train`` writes the configuration of a run.
CONFIG_NAME = "config.yaml"
_MODES = ("min", "max")


@attrs.frozen(eq=False)
class CheckpointSummary:
    """One checkpoint: its manifest, or why that cannot be read."""

    path: Path
    size: int
    manifest: Manifest | None
    problem: str | None

    @classmethod
    def of(cls, path: Path) -> CheckpointSummary:
        """Read the manifest of a checkpoint, but none of its tensors."""
        size = bytes_in(present(path))
        try:
            return cls(path, size, check_step(path, read_manifest(path)), None)
        except FunctrainError as error:
            return cls(path, size, None, _reason(error, path))

    @property
    def step(self) -> int | None:
        """Its step by its name, or by its manifest."""
        named = step_of(self.path)
        return named if named is not None or self.manifest is None else self.manifest.step

    @property
    def metrics(self) -> dict[str, Any]:
        """Values by name; empty where they cannot be read."""
        found = None if self.manifest is None else self.manifest.metrics
        return found if isinstance(found, dict) else {}


def entries_of(summaries: Iterable[CheckpointSummary]) -> dict[int, Entry]:
    """Return what retention rules look at, by step, of the checkpoints that can be read."""
    return {
        each.step: Entry.of(each.metrics, each.manifest.saved_at, each.manifest.info)
        for each in summaries
        if each.step is not None and each.manifest is not None
    }


def bytes_in(place: Path) -> int:
    """Return the size of the files in a directory; 0 where it is gone or may not be read."""
    try:
        with os.scandir(place) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0


def is_checkpoint(path: Path) -> bool:
    """Return whether a path names one checkpoint, damaged or not, rather than a run."""
    place = present(path.absolute())
    return place.is_dir() and (
        (place / MANIFEST).exists() or STEP_NAME.fullmatch(path.name) is not None
    )


def store_of(directory: Path, **options: Any) -> Checkpoints:
    """Return the checkpoints of a run that has some."""
    store = Checkpoints(directory, **options)
    if not directory.is_dir() or not store.steps():
        raise NoCheckpointError(
            errno.ENOENT, f"there is no run with checkpoints in {directory}, and no checkpoint"
        )
    return store


def paths_of(path: Path) -> list[Path]:
    """Return all checkpoints of a run in order, or the one that the path names."""
    if is_checkpoint(path):
        return [path.absolute()]
    store = store_of(path)
    return [store.path(step) for step in store.steps()]


def step_of(path: Path) -> int | None:
    """Return the step in a checkpoint's name.

    Example:
        >>> step_of(Path("run/step-00000120")), step_of(Path("run"))
        (120, None)
    """
    match = STEP_NAME.fullmatch(path.name)
    return None if match is None else int(match[1])


def check_step(path: Path, manifest: Manifest) -> Manifest:
    """Return the manifest of a checkpoint, after a check that its name tells the same step."""
    if step_of(path) not in (None, manifest.step):
        raise CheckpointCorruptError(f"{path} holds the checkpoint of step {manifest.step}")
    return manifest


def monitored(directory: Path, monitor: str | None, mode: str | None) -> dict[str, Any]:
    """Return what "best" means: the given metric, else the metric that the run itself used.

    The result is for :class:`~functrain.checkpoint.Checkpoints`. The mode is ``None`` if the metric
    or its name has to tell it.
    """
    if mode not in (None, *_MODES):
        raise ConfigurationError(f"--mode {mode}: expected min or max")
    own = _configured(directory) or _recorded(directory) or {"monitor": "loss"}
    # The mode of a run belongs to its own metric, and to no other.
    same = monitor is None or monitor == own["monitor"]
    return {
        "monitor": monitor or own["monitor"],
        "mode": mode or (own.get("mode") if same else None),
    }


def best_step(entries: Mapping[int, Entry], by: Mapping[str, Any], required: bool) -> int | None:
    """Return the step of the best checkpoint, if there is one.

    ``by`` is the result of :func:`monitored`. Where it is unknown whether less or more of the
    metric is better, raise if a step is required.
    """
    rule = Best(by["monitor"], by["mode"])
    if not required and rule.direction(entries) is None:
        return None
    return next(iter(rule.ranked(entries)), None)


def _configured(directory: Path) -> dict[str, Any]:
    """Return what the configuration of a run monitors; empty without a configuration."""
    try:
        found = yaml.safe_load((directory / CONFIG_NAME).read_bytes())["checkpoints"]
        return _metric(str(found["monitor"]), found.get("mode"))
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _recorded(directory: Path) -> dict[str, Any]:
    """Return what the run monitored when it saved its newest checkpoint."""
    try:
        entries = Checkpoints(directory).entries() if directory.is_dir() else {}
    except OSError:
        return {}
    said = [entries[step].monitored for step in sorted(entries) if entries[step].monitored]
    found = dict(said[-1]) if said else {}
    monitor = found.get("monitor")
    return _metric(monitor, found.get("mode")) if isinstance(monitor, str) else {}


def _metric(monitor: str, mode: object) -> dict[str, Any]:
    return {"monitor": monitor, "mode": mode if mode in _MODES else None}


def _reason(error: FunctrainError, path: Path) -> str:
    """Return the message of an error without the path, which is printed next to it."""
    text = str(getattr(error, "strerror", None) or error).splitlines()[0]
    return text.replace(f"{path}/", "").replace(f"{path} ", "")
