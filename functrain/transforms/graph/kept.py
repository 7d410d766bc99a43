"""Keep what Inductor compiles in memory, so that the next process loads it without Inductor.

Inductor has a cache too, but looks into it only after it has been imported and has prepared the
graph again, which takes seconds. An entry here is a file next to that cache: Inductor's Python
function that calls the kernels, and the libraries in the cache that hold them.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.transforms.graph.libraries import checksum, functions
from functrain.transforms.graph.standalone import scope_of_torch

Callee = Callable[..., Any]
_SUM = 32  # characters of a checksum


@attrs.frozen
class Library:
    """A library of kernels in Inductor's cache.

    Attributes:
        names: of its functions in the code that calls them.
    """

    path: str
    digest: str
    names: list[str]

    @classmethod
    def at(cls, path: str, names: list[str]) -> Library:
        """Return the library that lies at a path."""
        return cls(path, checksum(Path(path).read_bytes()).hex(), names)

    def load(self) -> dict[str, Callee]:
        """Return its functions by name.

        Raises:
            ImportError: the file is missing or damaged.
        """
        # To load a library that was cut short ends the process with SIGBUS.
        content = Path(self.path).read_bytes() if Path(self.path).exists() else b""
        if checksum(content).hex() != self.digest:
            raise ImportError(f"{self.path} is missing or has changed")
        return dict(zip(self.names, functions(Path(self.path)), strict=True))


def place(name: str) -> Path | None:
    """Return the file of an entry in Inductor's cache; ``None`` if others can write there."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    with contextlib.suppress(OSError):
        return private(Path(cache_dir()) / "functrain") / f"{name}.json"
    return None


def load(path: Path) -> dict[str, Any] | None:
    """Return functions and libraries of an entry by name, ``None`` if it is missing or damaged."""
    try:
        content = path.read_bytes()
        if checksum(content[_SUM:]).hex().encode() != content[:_SUM]:
            raise ImportError(f"{path} has changed")
        found, scope = json.loads(content[_SUM:]), scope_of_torch()
        for one in found["libraries"]:
            scope.update(Library(**one).load())
        exec(found["code"], scope)
    except FileNotFoundError:
        return None
    except (ImportError, OSError):  # compiled again then
        path.unlink(missing_ok=True)
        return None
    scope["call"] = _without_gradients(scope["call"])
    return scope


def save(path: Path, code: str, libraries: list[Library]) -> None:
    """Write an entry.

    The code defines ``call``.
    """
    entry = {"code": code, "libraries": [attrs.asdict(one) for one in libraries]}
    content = json.dumps(entry).encode()
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        written = Path(directory) / path.name
        written.write_bytes(checksum(content).hex().encode() + content)
        os.replace(written, path)


def _without_gradients(call: Callee) -> Callee:
    """Return a function of tensors one by one, as AOTAutograd calls Inductor's function."""

    def without(*leaves: Tensor) -> Any:
        with torch.no_grad():
            return call(list(leaves))

    return without


def private(directory: Path) -> Path:
    """Make a directory that only this user can write to, or make sure that it is one.

    The directory and the one above it are made with mode 0700.
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
