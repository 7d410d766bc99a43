"""All that a run directory tells, whatever of it is missing or damaged."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from functrain.checkpoint import Manifest
from functrain.cli.listing import Row, row_of
from functrain.cli.outline import Scalar, TensorLeaf, outline
from functrain.cli.run_directory import FILE_NAME as CONFIG
from functrain.cli.targets import paths_of
from functrain.cli.values import value_of
from functrain.errors import FunctrainError, NoCheckpointError, RunDirectoryError
from functrain.tree import path_string
from functrain.view.plotting.columns import Columns
from functrain.view.plotting.loading import loaded

# What of a checkpoint is read for a report.
_READ = ("train.counters.", "loop.best.", "loop.early_stop.")


@attrs.frozen(eq=False)
class Facts:
    """A run as its directory tells it.

    Attributes:
        directory: of the run.
        columns: of its log.
        config: its configuration; empty where there is none.
        checkpoints: all of them in order, with what is wrong with those that cannot be read.
        values: counters and decisions of the newest checkpoint, by dotted path.
        problems: what is missing or damaged, in words.
    """

    directory: Path
    columns: Columns
    config: Mapping[str, Any]
    checkpoints: tuple[Row, ...]
    values: Mapping[str, Any]
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.config.get("name") or self.directory.absolute().name)

    @property
    def newest(self) -> Manifest | None:
        """What the newest checkpoint that can be read says about itself."""
        found = [row.manifest for row in self.checkpoints if row.manifest is not None]
        return found[-1] if found else None

    @property
    def info(self) -> Mapping[str, Any]:
        """What the run wrote beside its newest state: recipe, environment, seconds, parent."""
        found = None if self.newest is None else self.newest.info
        return found if isinstance(found, dict) else {}


def gather(directory: Path) -> Facts:
    """Read a run directory.

    Args:
        directory: of a run, finished or not; nothing in it is changed.

    Raises:
        RunDirectoryError: it is no directory, or holds nothing of a run.
    """
    if not directory.is_dir():
        raise RunDirectoryError(errno.ENOENT, f"there is no run in {directory}")
    problems: list[str] = []
    log = loaded(directory)
    checkpoints = tuple(_checkpoints(directory, problems))
    config = _config(directory / CONFIG, problems)
    if not (log.columns.length or checkpoints or config):
        raise RunDirectoryError(
            errno.ENOENT, f"there is no run in {directory}: no log, no checkpoint, no {CONFIG}"
        )
    values = _values(checkpoints, problems)
    if log.problem is not None:
        problems.insert(0, log.problem)
    elif not log.columns.length:
        problems.insert(0, "the log has no steps")
    return Facts(directory, log.columns, config, checkpoints, values, tuple(problems))


def _checkpoints(directory: Path, problems: list[str]) -> Iterator[Row]:
    try:
        paths = paths_of(directory)
    except NoCheckpointError:
        problems.append("there is no checkpoint, so recipe and environment are not known")
        return
    for path in paths:
        row = row_of(path)
        if row.problem is not None:
            problems.append(f"{path.name} cannot be read: {row.problem}")
        yield row


def _config(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        problems.append(f"there is no {path.name}: the run was not begun by functrain train")
        return {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{path.name} cannot be read: {' '.join(str(error).split())}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} holds no configuration")
        return {}
    return {str(key): value for key, value in found.items()}


def _values(checkpoints: tuple[Row, ...], problems: list[str]) -> dict[str, Any]:
    """Counters and decisions of the newest state that can be read."""
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
                found[name] = value_of(row.path, row.manifest, entry.leaf).item()
    except FunctrainError as error:
        problems.append(f"{row.path.name} is damaged: {str(error).splitlines()[0]}")
    return found


def set_aside(directory: Path) -> list[str]:
    """Names of earlier ends of a run that were moved out of the way."""
    return sorted(name for name in os.listdir(directory) if name.startswith("set-aside-"))
