"""Everything in a run directory, however much of it is missing or damaged."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from functrain.checkpoint import Manifest
from functrain.checkpoint.outline import Scalar, TensorLeaf, outline, read_tensor
from functrain.errors import FunctrainError, NoCheckpointError, RunDirectoryError
from functrain.plotting.columns import Columns
from functrain.tree import path_string
from functrain.view.run_checkpoints import CONFIG_NAME, CheckpointSummary, paths_of
from functrain.view.run_logs import read_log

# A report reads these values of a checkpoint.
_READ = ("train.counters.", "loop.best.", "loop.early_stop.")


@attrs.frozen(eq=False)
class Facts:
    """The contents of a run directory.

    Attributes:
        directory: of the run.
        columns: of its log.
        config: its configuration; empty if there is none.
        checkpoints: in order, including those that cannot be read.
        values: counters and decisions in the newest checkpoint, by dotted path.
        problems: everything missing or damaged, in words.
    """

    directory: Path
    columns: Columns
    config: Mapping[str, Any]
    checkpoints: tuple[CheckpointSummary, ...]
    values: Mapping[str, Any]
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name in the configuration, or that of the directory."""
        return str(self.config.get("name") or self.directory.absolute().name)

    @property
    def newest(self) -> Manifest | None:
        """The manifest of the newest readable checkpoint."""
        found = [row.manifest for row in self.checkpoints if row.manifest is not None]
        return found[-1] if found else None

    @property
    def info(self) -> Mapping[str, Any]:
        """Recipe, environment, seconds and parent of the run, from its newest checkpoint."""
        found = None if self.newest is None else self.newest.info
        return found if isinstance(found, dict) else {}


def read_facts(directory: Path) -> Facts:
    """Read a run directory.

    Args:
        directory: of a run, finished or not; nothing in it is changed.

    Raises:
        RunDirectoryError: it is no directory, or holds nothing of a run.
    """
    if not directory.is_dir():
        raise RunDirectoryError(errno.ENOENT, f"there is no run in {directory}")
    problems: list[str] = []
    log = read_log(directory)
    checkpoints = tuple(_checkpoints(directory, problems))
    config = _config(directory / CONFIG_NAME, problems)
    if not (log.columns.length or checkpoints or config):
        raise RunDirectoryError(
            errno.ENOENT, f"there is no run in {directory}: no log, no checkpoint, no {CONFIG_NAME}"
        )
    values = _values(checkpoints, problems)
    if log.problem is not None:
        problems.insert(0, log.problem)
    elif not log.columns.length:
        problems.insert(0, "the log has no steps")
    return Facts(directory, log.columns, config, checkpoints, values, tuple(problems))


def _checkpoints(directory: Path, problems: list[str]) -> Iterator[CheckpointSummary]:
    try:
        paths = paths_of(directory)
    except NoCheckpointError:
        problems.append("there is no checkpoint, so recipe and environment are unknown")
        return
    for path in paths:
        summary = CheckpointSummary.of(path)
        if summary.problem is not None:
            problems.append(f"{path.name} cannot be read: {summary.problem}")
        yield summary


def _config(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        problems.append(f"there is no {path.name}: functrain train did not start this run")
        return {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{path.name} cannot be read: {' '.join(str(error).split())}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} holds no configuration")
        return {}
    return {str(key): value for key, value in found.items()}


def _values(checkpoints: tuple[CheckpointSummary, ...], problems: list[str]) -> dict[str, Any]:
    """Read counters and decisions from the newest readable checkpoint."""
    found: dict[str, Any] = {}
    row = next((row for row in reversed(checkpoints) if row.manifest is not None), None)
    if row is None or row.manifest is None:
        return found
    try:
        for entry in outline(row.manifest):
            name = path_string(entry.path)
            if not name.startswith(_READ):
                continue
            if isinstance(entry, Scalar):
                found[name] = entry.value
            elif isinstance(entry, TensorLeaf) and not entry.leaf.shape:
                found[name] = read_tensor(row.path, row.manifest, entry.leaf).item()
    except FunctrainError as error:
        problems.append(f"{row.path.name} is damaged: {str(error).splitlines()[0]}")
    return found


def set_aside(directory: Path) -> list[str]:
    """Return the directories of steps that a run left behind when it went back."""
    return sorted(name for name in os.listdir(directory) if name.startswith("set-aside-"))
