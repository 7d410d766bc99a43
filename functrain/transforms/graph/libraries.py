"""Load compiled code. This imports nothing of Inductor, which takes longer than all the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_128

Callee = Callable[..., Any]
ENTRY = "kernels"  # the name of such a module, and of its function
_SUM = 16  # bytes of a checksum


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
    # To load a library that was cut short ends the process with SIGBUS.
    found = path.read_bytes() if path.exists() else b""
    if checksum(found[:-_SUM]) != found[-_SUM:]:
        raise ImportError(f"expected a library with its checksum, got {len(found)} bytes at {path}")
    return functions(path)[0]
