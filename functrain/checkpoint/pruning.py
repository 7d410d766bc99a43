"""Prune the checkpoints of a run directory by its retention rules."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.loading import is_intact
from functrain.checkpoint.manifest_file import read_entry
from functrain.checkpoint.retention import Rule, prunable
from functrain.checkpoint.run_directory import list_steps, step_name
from functrain.checkpoint.storage import commit
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointSkippedWarning,
    CheckpointWriteWarning,
    NoCheckpointError,
)
from functrain.errors.base import warn

_MOST_LISTINGS = 20


def entries(directory: Path) -> dict[int, Entry]:
    """Return the metrics and time of each checkpoint, skipping unreadable ones with a warning."""
    before: list[Path] = []
    for _ in range(_MOST_LISTINGS):
        found: dict[int, Entry] = {}
        gone: list[Path] = []
        for step in list_steps(directory):
            path = directory / step_name(step)
            try:
                said, entry = read_entry(path)
                check_step(path, step, said)
            except NoCheckpointError:
                gone.append(path)
            except (CheckpointCorruptError, CheckpointFormatError) as damage:
                warn_skipped(path, damage)
            else:
                found[step] = entry
        if not gone or gone == before:
            break
        before = gone
        # Another process has pruned some and may have saved newer ones: list again.
    for path in gone:
        warn_skipped(path, NoCheckpointError(errno.ENOENT, "it is not a directory"))
    return found


def prunable_steps(directory: Path, rules: Sequence[Rule], just_saved: int | None) -> list[int]:
    """Return the steps that no rule keeps.

    ``just_saved`` is a step known to be valid. Without it, one that verifies is kept in any case.
    """
    if not rules:
        return []
    present = entries(directory)
    leaving = prunable(present, rules, just_saved)
    if leaving and just_saved is None:
        valid = _last_intact(directory, set(present) - set(leaving), leaving)
        leaving = [step for step in leaving if step != valid]
    return leaving


def prune(directory: Path, rules: Sequence[Rule], just_saved: int | None) -> list[int]:
    """Remove the :func:`prunable_steps`; the caller holds the lock.

    If a checkpoint cannot be read or removed, it stays, with a warning.
    """
    try:
        leaving = prunable_steps(directory, rules, just_saved)
    except OSError as error:
        warn_kept(directory, error)
        return []
    return [step for step in leaving if _removed(directory / step_name(step))]


def check_step(path: Path, step: int, said: int | None) -> None:
    """Raise if a checkpoint holds another step than its name says."""
    if said != step:
        raise CheckpointCorruptError(f"{path} holds the checkpoint of step {said}")


def warn_skipped(path: Path | str, damage: Exception) -> None:
    warn(f"skipped {path}: {damage}", CheckpointSkippedWarning)


def warn_kept(path: Path | str, error: OSError) -> None:
    """Warn that checkpoints could not be pruned."""
    warn(
        f"checkpoints no longer needed in {path} could not be removed: {error}. They occupy "
        "space until the next save tries again",
        CheckpointWriteWarning,
    )


def _last_intact(directory: Path, kept: set[int], leaving: list[int]) -> int | None:
    """Return the newest valid step among those leaving, if none of those kept is valid."""
    if any(is_intact(directory / step_name(step)) for step in sorted(kept, reverse=True)):
        return None
    newest_first = reversed(leaving)
    return next((step for step in newest_first if is_intact(directory / step_name(step))), None)


def _removed(path: Path) -> bool:
    try:
        commit.remove(path)
    except OSError as error:
        warn_kept(path, error)
        return False
    return True
