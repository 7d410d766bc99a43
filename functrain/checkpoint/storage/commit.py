"""Make a directory appear wholly or not at all, and clear away what dead writers left.

The protocol: write beside the final name; sync the files, then their directory; rename; sync the
directory above. Names on the way begin with a dot and say what they are:

* ``.NAME.PID.TOKEN.writing``: unfinished, locked by its writer for as long as that lives;
* ``.NAME.PID.TOKEN.replaced``: the older one of a pair, between two renames;
* ``.NAME.PID.TOKEN.removed``: condemned.
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
    make_directories,
    sync_directory,
    try_lock,
    turn,
    unlock,
)

_HIDDEN = re.compile(r"\.(?P<name>.+)\.\d+\.[0-9a-f]{16}\.(?P<state>writing|replaced|removed)")


def commit(path: Path, fill: Callable[[Path], None], check: Callable[[Path], None]) -> None:
    """Put a directory at ``path``, in the place of the one that may be there.

    Args:
        path: final name.
        fill: writes and syncs the files into the directory it is given.
        check: raises if what is at ``path`` may not be replaced. Asked before anything is written,
            and again, while nobody else can change it, before the renaming.

    Raises:
        OSError: from any step; what was written is removed, what was there before is untouched.
    """
    make_directories(path.parent)
    with turn(path.parent):
        sweep(path.parent, path.name)
        check(path)
        temporary = _hidden(path, "writing")
        claim, owner = _claimed(temporary), os.getpid()
    try:
        fill(temporary)
        sync_directory(temporary)
        with turn(path.parent):
            check(path)
            _publish(temporary, path)
    except BaseException:
        _discard(temporary)
        raise
    finally:
        unlock(claim, owner)


def remove(path: Path) -> None:
    """Remove a directory; its name is gone before the first of its files is.

    Raises:
        OSError: it could not be removed wholly.
    """
    condemned = _hidden(path, "removed")
    os.rename(path, condemned)
    # Else a power cut may keep the old name, and lose files that it names.
    sync_directory(path.parent)
    if condemned.is_symlink():
        condemned.unlink()
    else:
        shutil.rmtree(condemned)


def sweep(directory: Path, name: str | None = None) -> None:
    """Clear away what dead writers left, and finish a replacement that was cut short.

    Args:
        directory: where; the caller has its turn there.
        name: look only for leftovers of this name.
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
    """Where the directory called ``path`` is at the moment: there, or half-way through replacement.

    Returns:
        ``path`` itself if it exists or no older one stands in for it.
    """
    if path.exists() or not path.parent.is_dir():
        return path
    return waiting(path.parent).get(path.name, path)


def named(entry: str) -> str:
    """The name under which a directory entry can be read: its own, or the one it stands in for.

    Example:
        >>> named("step-00000007"), named(".step-00000007.12.0123456789abcdef.replaced")
        ('step-00000007', 'step-00000007')
    """
    match = _HIDDEN.fullmatch(entry)
    return match["name"] if match is not None and match["state"] == "replaced" else entry


def waiting(directory: Path) -> dict[str, Path]:
    """Directories that were renamed away for a newer one which never came, by their real name."""
    matches = [match for match in map(_HIDDEN.fullmatch, os.listdir(directory)) if match]
    names = {
        match["name"]: directory / match[0] for match in matches if match["state"] == "replaced"
    }
    return {name: place for name, place in names.items() if not (directory / name).exists()}


def _publish(temporary: Path, path: Path) -> None:
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
    """Remove what a newer one has replaced, so that it can never stand in for it again."""
    condemned = older.with_suffix(".removed")
    with contextlib.suppress(OSError):
        os.rename(older, condemned)
        sync_directory(older.parent)
        _discard(condemned)


def _discard(directory: Path) -> None:
    """Remove what may as well stay until the next sweep."""
    with contextlib.suppress(OSError):  # rmtree lets errors of closing through
        if directory.is_symlink():
            directory.unlink()
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _claimed(temporary: Path) -> int:
    """Make a directory and hold its lock, which tells others that its writer lives."""
    os.mkdir(temporary)
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    except BaseException:
        os.rmdir(temporary)
        raise
    try_lock(descriptor)
    return descriptor


def _is_abandoned(temporary: Path) -> bool:
    """Whether nobody holds the claim that a writer keeps on its directory while it lives."""
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        return try_lock(descriptor) is True
    finally:
        unlock(descriptor, os.getpid())
