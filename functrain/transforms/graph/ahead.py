"""Steps compiled ahead of time: a library in a file, which the next process loads at once.

It takes longer to compile than what is compiled in memory, and less to call: nothing of a call is
Python. The file's name is a digest of the graph and of everything its code depends on, so a library
with that name is the one that would be compiled.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from functrain.transforms.graph.digest import digest
from functrain.transforms.graph.kept import load_package, load_update
from functrain.transforms.graph.loops import Updates

Callee = Callable[..., Any]
# An update is put in its place just before the package that needs it. One that has waited for so
# many seconds is of a process that was killed in between.
_ABANDONED = 3600


def compiled_ahead(
    directory: Path,
    graph: GraphModule,
    inputs: list[Tensor],
    options: Mapping[str, Any],
    updates: Updates | None = None,
    limit: int | None = None,
) -> Callee:
    """Load the library of a graph, which is compiled if it is not there yet.

    Libraries are code: load only those that you trust. ``updates`` follow the graph, in a library
    of their own. Others go where all together have more bytes than the ``limit``.
    """
    path = directory / f"{digest(graph, inputs, options, updates)}.pt2"
    call = _found(path, updates)
    if call is None:
        from functrain.transforms.graph.inductor import compile_to_file

        compile_to_file(path, graph, inputs, options, updates)
        call = _loaded(path, updates)
    if limit is not None:
        prune(directory, limit)
    return call


def _found(path: Path, updates: Updates | None) -> Callee | None:
    """Load a library and note that it is used, if it is there and not damaged."""
    if not path.exists():
        return None
    try:
        call = _loaded(path, updates)
    except (RuntimeError, ImportError):
        _remove(path)  # damaged, or of another machine
        return None
    with contextlib.suppress(OSError):  # it may be another user's, or removed by now
        os.utime(path)
    return call


def _loaded(path: Path, updates: Updates | None) -> Callee:
    call = load_package(path)
    return call if updates is None else updates.after(call, load_update(path.with_suffix(".so")))


def prune(directory: Path, limit: int) -> None:
    """Remove the libraries that were used longest ago until the rest is within a limit.

    An update without its package goes, too, unless another process may be about to add that.
    """
    found = []
    for path in directory.glob("*.pt2"):
        with contextlib.suppress(FileNotFoundError):  # another process may prune too
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    total = 0
    for number, (_, size, path) in enumerate(sorted(found, reverse=True)):
        total += size
        if number and total > limit:
            _remove(path)
    for update in directory.glob("*.so"):
        with contextlib.suppress(FileNotFoundError):
            age = time.time() - update.stat().st_mtime
            if age > _ABANDONED and not update.with_suffix(".pt2").exists():
                update.unlink()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".so").unlink(missing_ok=True)
