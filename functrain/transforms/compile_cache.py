"""A cache of compiled graphs in a directory of the user's own, outside of run directories.

Libraries are code. A run directory may be of someone else, and to continue or read one must not run
what lies in it; so nothing is loaded from there, whatever its name.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import attrs

from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.errors import CompileCacheWarning
from functrain.errors.base import warn
from functrain.transforms.graph.device_step import Compiled
from functrain.transforms.graph.lowering import Lowering

_VARIABLE = "FUNCTRAIN_CACHE_DIR"
_LIMIT = 4 << 30  # bytes; a library of a small step has 0.1 MB


def cached(program: AnyProgram) -> AnyProgram:
    """Cache compiled graphs for later processes, unless the user chose a directory or a mode.

    Only Inductor for the processor does so; other backends have no libraries to keep.

    Where the cache cannot be used, the program stays as it was, with a ``CompileCacheWarning``.
    """
    return program.map_leaves(_cached)


def _cached(program: Program) -> Program:
    made = program.device_step
    if not isinstance(made, Compiled) or not _may_be_kept(made.lowering, program):
        return program
    try:
        directory = private(cache_directory() / "compiled")
    except OSError as error:
        warn(
            f"compiled code is not kept, so a resumed run compiles again: {error}. Name a "
            f"directory that only you can write to: {_VARIABLE}=...",
            CompileCacheWarning,
        )
        return program
    lowering = attrs.evolve(made.lowering, directory=directory, limit=_LIMIT)
    return attrs.evolve(program, device_step=attrs.evolve(made, lowering=lowering))


def _may_be_kept(lowering: Lowering, program: Program) -> bool:
    device = next(iter(program.fixed.model.params.values())).device
    chosen = lowering.directory is not None or lowering.mode is not None
    return not chosen and lowering.backend == "inductor" and device.type == "cpu"


def cache_directory() -> Path:
    """Return the user's cache: ``FUNCTRAIN_CACHE_DIR``, else that of the XDG specification.

    Raises:
        OSError: there is no home directory.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if named := os.environ.get(_VARIABLE):
            return Path(named).expanduser().absolute()
        # The specification says to ignore a relative path.
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "functrain"
    except RuntimeError as error:
        raise OSError(str(error)) from error


def private(directory: Path) -> Path:
    """Make a directory that only this user can write to, or make sure that it is one.

    The directory and the one above it are made with mode 0700.

    Raises:
        PermissionError: another user can write there, or this one cannot.
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
