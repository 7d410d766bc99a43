"""Steps compiled ahead of time: a library in a file, which the next process loads at once.

It takes longer to compile than what is compiled in memory, and less to call: nothing of a call is
Python. The file's name is a digest of the graph and of everything its code depends on, so a library
with that name is the one that would be compiled.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from xxhash import xxh3_128

from functrain.transforms.graph.inductor import (
    compile_to_file,
    compile_update,
    load_file,
    load_update,
    settings_digest,
)
from functrain.transforms.graph.inputs import form
from functrain.transforms.graph.updates import Updates

Callee = Callable[..., Any]


def compiled_ahead(
    directory: Path,
    graph: GraphModule,
    inputs: list[Tensor],
    options: Mapping[str, Any],
    updates: Updates | None = None,
) -> Callee:
    """Load the library of a graph, which is compiled if it is not there yet.

    Args:
        directory: where libraries are kept. They are code: load only those that you trust.
        graph: a function of tensors, one by one.
        inputs: tensors like those it will be given.
        options: settings of Inductor by name.
        updates: what follows the graph, in a library of its own.
    """
    path = directory / f"{digest(graph, inputs, options, updates)}.pt2"
    if path.exists():
        try:
            call = _loaded(path, updates)
            with contextlib.suppress(OSError):  # it may be another user's, or removed by now
                os.utime(path)  # which says that it is used
            return call
        except (RuntimeError, ImportError):
            path.unlink(missing_ok=True)  # damaged, or of another machine
    if updates is not None:  # first: a process that finds the other file finds both
        compile_update(updates, path.with_suffix(".so"))
    compile_to_file(path, graph, inputs, options)
    return _loaded(path, updates)


def _loaded(path: Path, updates: Updates | None) -> Callee:
    call = load_file(path)
    return call if updates is None else updates.after(call, load_update(path.with_suffix(".so")))


def prune(directory: Path, limit: int) -> None:
    """Remove the libraries that were used longest ago until the rest is within a limit.

    Args:
        directory: where they are.
        limit: their size in bytes; the last one used stays.
    """
    found = []
    for path in directory.glob("*.pt2"):
        with contextlib.suppress(FileNotFoundError):  # another process may prune too
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    total = 0
    for number, (_, size, path) in enumerate(sorted(found, reverse=True)):
        total += size
        if number and total > limit:
            path.unlink(missing_ok=True)
            path.with_suffix(".so").unlink(missing_ok=True)


def digest(
    graph: GraphModule,
    inputs: list[Tensor],
    options: Mapping[str, Any],
    updates: Updates | None = None,
) -> str:
    """Return a name for what a graph is compiled to: equal ones are the same library."""
    devices = {str(tensor.device) for tensor in inputs}
    names = [torch.cuda.get_device_name(name) for name in sorted(devices) if "cuda" in name]
    surroundings = (
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        names,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        settings_digest(),
        sorted((name, str(_identity(value))) for name, value in options.items()),
        [form(tensor) for tensor in inputs],
        updates,
    )
    found = xxh3_128(f"{graph.code}{surroundings}".encode())
    for name, constant in sorted([*graph.named_parameters(), *graph.named_buffers()]):
        value = constant.detach().cpu().contiguous()
        found.update(f"{name}{form(value)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _identity(value: Any) -> Any:
    return value.uuid().hex() if hasattr(value, "uuid") else value
