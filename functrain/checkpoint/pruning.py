"""Letting checkpoints of a run directory go, by rules."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.loading import is_intact, read_entry
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
from functrain.errors.warning import warn

_MOST_LISTINGS = 20


def entries(directory: Path) -> dict[int, Entry]:
    """What each checkpoint says of itself; those that cannot be read are passed over."""
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
        # Another process has let some go, and may have saved newer ones since: look again.
    for path in gone:
        warn_skipped(path, NoCheckpointError(errno.ENOENT, "it is no directory"))
    return found


def going(directory: Path, rules: Sequence[Rule], just_saved: int | None) -> list[int]:
    """Steps that no rule keeps.

    Args:
        directory: the run directory.
        rules: without any, all is kept.
        just_saved: a step known to be sound. Without it one that verifies is kept in any case.
    """
    if not rules:
        return []
    present = entries(directory)
    leaving = prunable(present, rules, just_saved)
    if leaving and just_saved is None:
        spared = _last_intact(directory, set(present) - set(leaving), leaving)
        leaving = [step for step in leaving if step != spared]
    return leaving


def prune(directory: Path, rules: Sequence[Rule], just_saved: int | None) -> list[int]:
    """Remove what :func:`going` names; the caller has the lock.

    What cannot be removed, or looked at, stays and is told in a warning.

    Returns:
        Steps that were removed.
    """
    try:
        leaving = going(directory, rules, just_saved)
    except OSError as error:
        _warn_kept(directory, error)
        return []
    return [step for step in leaving if _removed(directory / step_name(step))]


def check_step(path: Path, step: int, said: int | None) -> None:
    """Refuse a checkpoint that stands under the name of another step."""
    if said != step:
        raise CheckpointCorruptError(f"{path} holds the checkpoint of step {said}")


def warn_skipped(path: Path, damage: Exception) -> None:
    """Tell of a checkpoint that was passed over."""
    warn(f"passed over {path}: {damage}", CheckpointSkippedWarning)


def _last_intact(directory: Path, kept: set[int], leaving: list[int]) -> int | None:
    """The newest sound checkpoint among those leaving, if none of those kept is sound."""
    if any(is_intact(directory / step_name(step)) for step in sorted(kept, reverse=True)):
        return None
    newest_first = reversed(leaving)
    return next((step for step in newest_first if is_intact(directory / step_name(step))), None)


def _removed(path: Path) -> bool:
    try:
        commit.remove(path)
    except OSError as error:
        _warn_kept(path, error)
        return False
    return True


def _warn_kept(path: Path, error: OSError) -> None:
    warn(
        f"what is no longer needed in {path} could not be removed: {error}. It takes room "
        "until it is; the next save tries again",
        CheckpointWriteWarning,
    )
