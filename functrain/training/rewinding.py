"""Going on from an earlier step, or from another run's checkpoint, without losing what is there."""

from __future__ import annotations

import os
from pathlib import Path

from functrain.checkpoint import Checkpoints
from functrain.checkpoint.storage.files import created, make_directories, sync_directory, write_all
from functrain.errors import LogError
from functrain.training.log import FILE_NAME


def set_aside(store: Checkpoints, step: int) -> Path | None:
    """Move checkpoints after a step out of the way, with a copy of the log that goes with them.

    Args:
        store: the run directory; the caller has its lock.
        step: where the run goes on.

    Returns:
        The directory they are in, a run directory like any other; ``None`` if there were none.
    """
    later = [each for each in store.steps() if each > step]
    if not later:
        return None
    aside = _unused(store.directory / f"set-aside-from-{later[0]:08d}-to-{later[-1]:08d}")
    aside.mkdir()
    log = store.directory / FILE_NAME
    if log.exists():
        _copy(log, aside / FILE_NAME, log.stat().st_size)
    # The newest first: cut short, what is left in place is an unbroken beginning.
    for each in reversed(later):
        os.rename(store.path(each), aside / store.path(each).name)
    sync_directory(aside)
    sync_directory(store.directory)
    return aside


def bring_log(checkpoint: Path, directory: Path, size: int) -> int:
    """Copy what a checkpoint has seen of its run's log into another run directory.

    Args:
        checkpoint: in the run directory it was saved in, or anywhere else.
        directory: the new run directory.
        size: length of the log in bytes when the checkpoint was saved.

    Returns:
        Bytes copied: ``size``, or 0 where the log is not beside the checkpoint.

    Raises:
        LogError: there is a log already.
    """
    source, target = checkpoint.parent / FILE_NAME, directory / FILE_NAME
    if not source.exists() or source.stat().st_size < size:
        return 0
    if target.exists() and target.stat().st_size:
        if target.read_bytes()[:size] == source.read_bytes()[:size]:
            return size  # brought before, by a run that ended before its first checkpoint
        raise LogError(
            f"{target} is the log of another run; choose an empty directory to go on from "
            f"{checkpoint}"
        )
    target.unlink(missing_ok=True)
    make_directories(directory)
    _copy(source, target, size)
    sync_directory(directory)
    return size


def _copy(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as stream, created(target) as descriptor:
        write_all(descriptor, stream.read(size))


def _unused(path: Path) -> Path:
    candidate, count = path, 1
    while os.path.lexists(candidate):
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")
    return candidate
