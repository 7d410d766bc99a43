"""Directories from which code is loaded."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def private(directory: Path) -> Path:
    """Make a directory that only this user can write to, or make sure that it is one.

    Args:
        directory: made with mode 0700, and the one above it.

    Raises:
        OSError: it cannot be made or written to, or others can write to it.
    """
    for one in (directory.parent, directory):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.stat(one)
        if hasattr(os, "geteuid"):  # elsewhere a home directory has access lists of its own
            if found.st_uid != os.geteuid():
                raise PermissionError(f"{one} belongs to another user, who could put code there")
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"others can write to {one}, and so put code there")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} cannot be written to")
    return directory
