"""Choose the checkpoint that a run resumes from."""

from __future__ import annotations

import errno
import operator
import os
from pathlib import Path
from typing import Any, TypeAlias

from functrain.checkpoint import Checkpoints, read_manifest
from functrain.checkpoint.format.manifest import MANIFEST
from functrain.errors import CheckpointCorruptError, ConfigurationError, NoCheckpointError
from functrain.errors.nearest import nearest
from functrain.errors.paths import absolute

# The argument of ``fit``: whether to resume, or "best", a step or a path.
Resume: TypeAlias = bool | int | str | Path

_WORDS = ("latest", "best")
_TAKES = 'resume takes True, False, "latest", "best", a step such as 14, or a path'


def choose(store: Checkpoints | None, resume: Resume) -> tuple[Path, int | str | Path] | None:
    """Return the run directory and the checkpoint to resume from; ``None`` for a new run."""
    resume = _checked(resume)
    holds = store is not None and bool(store.steps())
    if is_path(resume):
        path = absolute(str(resume))
        run = _run_at(path)
        if run is not None and store is not None and path.resolve() == store.directory.resolve():
            return store.directory, "latest"
        if store is not None and path.resolve().parent == store.directory.resolve():
            return store.directory, path
        if store is not None and holds:
            parent = parent_of(store)
            if parent is not None and str(path) in (parent, str(Path(parent).parent)):
                return store.directory, "latest"  # the same call again
            _check_exists(resume)
            raise ConfigurationError(
                f"{store.directory} holds a run already. To resume from {path}, choose an empty "
                "directory, or take one of its own checkpoints."
            )
        _check_exists(resume)
        return (path.parent, path) if run is None else (run, "latest")
    if holds and store is not None:
        if resume is False:
            raise ConfigurationError(
                f"{store.directory} holds a run already. Choose another directory, or continue it "
                "with resume=True."
            )
        return store.directory, "latest" if resume is True else resume
    if resume is not True and resume is not False and resume != "latest":
        where = "without a directory" if store is None else f"in {store.directory}"
        raise NoCheckpointError(errno.ENOENT, f"resume={resume!r}: there is no checkpoint {where}")
    return None


def _checked(resume: Any) -> Resume:
    """Refuse what is neither a step nor a path."""
    if isinstance(resume, bool | str | Path):
        return resume
    try:
        step = operator.index(resume)
    except TypeError:
        step = -1
    if step < 0:
        whole = isinstance(resume, float) and resume.is_integer() and resume >= 0
        hint = f"; did you mean {int(resume)}?" if whole else ""
        raise ConfigurationError(f"{_TAKES}; got {resume!r}{hint}")
    return step


def _check_exists(given: object) -> None:
    """Refuse a text that is no path, but perhaps another argument in quotes."""
    if not isinstance(given, str) or (
        given and (os.path.lexists(absolute(given)) or os.sep in given)
    ):
        return
    number = given.strip().isdecimal()
    hint = f": write resume={int(given)}" if number else nearest(given, _WORDS)
    raise NoCheckpointError(errno.ENOENT, f"resume={given!r} is no path{hint}; {_TAKES}")


def _run_at(path: Path) -> Path | None:
    """Return a path if it is a run directory with checkpoints."""
    if (path / MANIFEST).exists() or not path.is_dir():
        return None
    return path if Checkpoints(path).steps() else None


def parent_of(store: Checkpoints) -> str | None:
    """Return the checkpoint of another run that this run was started from, if any."""
    for step in reversed(store.steps()):
        try:
            info = read_manifest(store.path(step)).info
        except (CheckpointCorruptError, NoCheckpointError):
            continue
        return info.get("parent") if isinstance(info, dict) else None
    return None


def is_path(which: object) -> bool:
    """Return whether a checkpoint is given by its path."""
    return isinstance(which, str | Path) and which not in _WORDS
