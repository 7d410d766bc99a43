"""Create and replace directories atomically, and clean up after killed writers.

The protocol: write to a temporary directory next to the final name; sync the files, then their
directory; rename; sync the parent directory. A rename is durable only after the sync of its parent,
and must not become durable before the files, or a power cut leaves a name without content.

Temporary names begin with a dot:

* ``.NAME.PID.TOKEN.writing``: unfinished, and locked by its writer while that is alive;
* ``.NAME.PID.TOKEN.replaced``: the old version, between the two renames of a replacement;
* ``.NAME.PID.TOKEN.removed``: about to be deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from functrain.checkpoint.storage.files import (
    directory_lock,
    make_directories,
    sync_directory,
    try_lock,
    unlock,
)

_HIDDEN = re.compile(r"\.(?P<name>.+)\.\d+\.[0-9a-f]{16}\.(?P<state>writing|replaced|removed)")


def commit(path: Path, fill: Callable[[Path], None], check: Callable[[Path], None]) -> None:
    """Create a directory atomically, or replace an existing one.

    ``fill`` writes and syncs the files in a given directory. ``check`` raises if ``path`` must not
    be replaced; it is called before anything is written, and again under the directory's lock
    before the rename. If any step fails, the new files are removed, and the old directory is
    unchanged.
    """
    make_directories(path.parent)
    with directory_lock(path.parent):
        sweep(path.parent, path.name)
        check(path)
        temporary = _hidden(path, "writing")
        claim, owner = _claimed(temporary), os.getpid()
    try:
        fill(temporary)
        sync_directory(temporary)  # the files' names, before the rename can become durable
        with directory_lock(path.parent):
            check(path)
            _publish(temporary, path)
    except BaseException:
        _discard(temporary)
        raise
    finally:
        unlock(claim, owner)


def remove(path: Path) -> None:
    """Remove a directory; its name disappears before the first of its files."""
    condemned = _hidden(path, "removed")
    os.rename(path, condemned)
    # Otherwise a power cut could restore the old name after some of its files are gone.
    sync_directory(path.parent)
    if condemned.is_symlink():
        condemned.unlink()
    else:
        shutil.rmtree(condemned)


def sweep(directory: Path, name: str | None = None) -> None:
    """Delete what killed writers left, and undo or finish an interrupted replacement.

    The caller has locked the directory. With a name, only leftovers of that name are considered.
    """
    for entry in os.listdir(directory):
        match = _HIDDEN.fullmatch(entry)
        if match is None or name not in (None, match["name"]):
            continue
        leftover, final = directory / entry, directory / match["name"]
        if match["state"] == "replaced" and not final.exists():
            with contextlib.suppress(OSError):
                os.rename(leftover, final)
        elif match["state"] == "replaced":
            _condemn(leftover)
        elif match["state"] == "removed" or _is_abandoned(leftover):
            _discard(leftover)


def present(path: Path) -> Path:
    """Return where a directory is: elsewhere only in the middle of its replacement."""
    if path.exists() or not path.parent.is_dir():
        return path
    entries = [entry for entry in os.listdir(path.parent) if entry != path.name]
    older = [path.parent / entry for entry in entries if final_name(entry) == path.name]
    # The replacement may have ended since the first look.
    return path if not older or path.exists() else older[-1]


def final_name(entry: str) -> str:
    """Return the final name of a directory entry, which an old version may have lost.

    Example:
        >>> final_name("step-00000007"), final_name(".step-00000007.12.0123456789abcdef.replaced")
        ('step-00000007', 'step-00000007')
    """
    match = _HIDDEN.fullmatch(entry)
    return match["name"] if match is not None and match["state"] == "replaced" else entry


def _publish(temporary: Path, path: Path) -> None:
    # Directories cannot be exchanged portably, so for a moment the final name does not exist:
    # `present` finds the old version then, and `sweep` renames it back after a crash.
    older = _hidden(path, "replaced")
    replacing = path.exists()
    if replacing:
        os.rename(path, older)
    try:
        os.rename(temporary, path)
    except BaseException:
        if replacing:
            os.rename(older, path)
        raise
    sync_directory(path.parent)
    if replacing:
        _condemn(older)


def _hidden(path: Path, state: str) -> Path:
    return path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.{state}"


def _condemn(older: Path) -> None:
    """Delete a replaced version; renamed first, so that `present` never returns it again."""
    condemned = older.with_suffix(".removed")
    with contextlib.suppress(OSError):
        os.rename(older, condemned)
        sync_directory(older.parent)
        _discard(condemned)


def _discard(directory: Path) -> None:
    """Delete a directory, leaving any rest to the next sweep."""
    with contextlib.suppress(OSError):  # rmtree raises errors of closing even so
        if directory.is_symlink():
            directory.unlink()
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _claimed(temporary: Path) -> int:
    """Create a directory and lock it, which shows others that its writer is alive."""
    os.mkdir(temporary)
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    except BaseException:
        os.rmdir(temporary)
        raise
    try_lock(descriptor)
    return descriptor


def _is_abandoned(temporary: Path) -> bool:
    """Return whether the writer that locked a directory is gone."""
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        return try_lock(descriptor) is True
    finally:
        unlock(descriptor, os.getpid())
