"""Load compiled code, and keep what Inductor compiles in memory for the next process.

This imports nothing of Inductor, which takes longer than all the rest. Inductor has a cache too,
but looks into it only after it has been imported and has prepared the graph again, which takes
seconds. An entry here is a file next to that cache: Inductor's Python function that calls the
kernels, and the libraries in the cache that hold them.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from xxhash import xxh3_128

from functrain.transforms.graph.standalone import scope_of_torch

Callee = Callable[..., Any]
ENTRY = "kernels"  # the name of a module of kernels, and of its function
_SUM = 16  # bytes of a checksum


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
        if checksum(_content(Path(self.path))).hex() != self.digest:
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
        if checksum(content[2 * _SUM :]).hex().encode() != content[: 2 * _SUM]:
            raise ImportError(f"{path} has changed")
        found, scope = json.loads(content[2 * _SUM :]), scope_of_torch()
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


def load_package(path: Path) -> Callee:
    """Load a graph that was compiled ahead of time.

    Raises:
        RuntimeError: the file is damaged, or of another machine.
    """
    # The same call as in torch._inductor.aoti_load_package, for one model and one runner.
    loader: Any = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)

    def call(*leaves: Tensor) -> Any:
        return loader.boxed_run(list(leaves))

    return call


def functions(path: Path) -> list[Callee]:
    """Load a library of kernels (``kernels.py``), and return its functions.

    Raises:
        ImportError: it is no library, or of another machine.
    """
    # By which Inductor's template finds the function that gives a tensor's address.
    guards: Any = torch._C._dynamo.guards
    address = str(guards._torchinductor_pyobject_tensor_data_ptr)
    os.environ["_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"] = address
    name = f"{path.stem}.{ENTRY}"
    loader = ExtensionFileLoader(name, str(path))
    module = module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    loader.exec_module(module)
    found: list[Callee] = getattr(module, ENTRY)()
    return found


def checksum(content: bytes) -> bytes:
    """Return the bytes that :func:`load_update` expects behind a library."""
    return xxh3_128(content).digest()


def load_update(path: Path) -> Callable[..., None]:
    """Load an update (``kernels.compile_update``) that is followed by its checksum.

    Raises:
        ImportError: the file is missing, damaged, or of another machine.
    """
    found = _content(path)
    if checksum(found[:-_SUM]) != found[-_SUM:]:
        raise ImportError(f"expected a library with its checksum, got {len(found)} bytes at {path}")
    return functions(path)[0]


def _content(path: Path) -> bytes:
    # To load a library that was cut short ends the process with SIGBUS, so it is read before.
    return path.read_bytes() if path.exists() else b""
