"""Paths that users give: ``~`` is the home directory, and an empty path is refused."""

from __future__ import annotations

import os
from pathlib import Path

from functrain.errors.base import ConfigurationError


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced by the home directory.

    Raises:
        ConfigurationError: the path is empty, as an unset variable of the shell is.

    Example:
        >>> expanded("~/runs") == Path.home() / "runs", expanded("runs")
        (True, PosixPath('runs'))
    """
    if not os.fspath(path):
        raise ConfigurationError('expected a path, got ""; "." is the present folder')
    return Path(os.path.expanduser(path))


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path, which a later change of the working directory does not affect.

    Raises:
        ConfigurationError: the path is empty.
    """
    return expanded(path).absolute()
