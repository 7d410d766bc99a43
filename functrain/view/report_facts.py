"""Everything in a run directory, however much of it is missing or damaged."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml

from functrain.checkpoint import Manifest
from functrain.checkpoint.outline import Scalar, TensorLeaf, outline, read_tensor
from functrain.errors import FunctrainError, LogError, NoCheckpointError, RunDirectoryError
from functrain.metrics.log_file import FILE_NAME, Row, stream
from functrain.plotting.columns import Columns
from functrain.tree import path_string
from functrain.view.run_checkpoints import CONFIG_NAME, CheckpointSummary, paths_of

# A report reads these values of a checkpoint.
_READ = ("train.counters.", "loop.best.", "loop.early_stop.")


@attrs.frozen(eq=False)
class Facts:
    """The contents of a run directory.

    Attributes:
        columns: of its log.
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
    """Read a run directory, of a run that has finished or not, and change nothing in it."""
    if not directory.is_dir():
        raise RunDirectoryError(errno.ENOENT, f"there is no run in {directory}")
    problems: list[str] = []
    columns, damage = read_log(directory)
    checkpoints = tuple(_checkpoints(directory, problems))
    config = _config(directory / CONFIG_NAME, problems)
    if not (columns.length or checkpoints or config):
        raise RunDirectoryError(
            errno.ENOENT, f"there is no run in {directory}: no log, no checkpoint, no {CONFIG_NAME}"
        )
    values = _values(checkpoints, problems)
    if damage is not None:
        problems.insert(0, damage)
    elif not columns.length:
        problems.insert(0, "the log has no steps")
    return Facts(directory, columns, config, checkpoints, values, tuple(problems))


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
    except (OSError, yaml.YAMLError, ValueError) as error:
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


# Either file makes a directory a run; a configuration may belong to several runs below it.
_MARKS = (FILE_NAME, "FORMAT")


def read_log(directory: Path) -> tuple[Columns, str | None]:
    """Return the log of a run directory as far as it can be read, and why there is no more.

    Example:
        >>> read_log(Path("nowhere"))[1]
        'nowhere cannot be read: No such file or directory'
    """
    problems: list[str] = []

    def rows() -> Iterator[Row]:
        try:
            yield from stream(directory)
        except LogError as error:
            problems.append(str(error))

    return Columns.of(rows()), next(iter(problems), None)


def runs_at(paths: Sequence[Path]) -> list[Path]:
    """Return the run directories at or below some paths, each once.

    The runs below one path are in natural order: ``seed2`` before ``seed10``. A path without a run
    stands for itself.
    """
    found = [run for path in paths for run in (sorted(_below(path), key=_natural) or [path])]
    return list({run.resolve(): run for run in found}.values())


def _below(path: Path) -> Iterator[Path]:
    for place, directories, names in os.walk(path):
        if any(mark in names for mark in _MARKS):
            directories.clear()  # a run keeps set-aside parts of itself in directories like runs
            yield Path(place)
        directories[:] = [name for name in directories if not name.startswith(".")]


def _natural(path: Path) -> list[tuple[int, str]]:
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]
