"""Steps compiled in memory: by Inductor, or loaded from what it made in an earlier process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.fx import GraphModule

from functrain.transforms.graph import kept
from functrain.transforms.graph.digest import digest
from functrain.transforms.graph.loops import Updates
from functrain.transforms.graph.standalone import is_plain, standalone

if TYPE_CHECKING:  # this takes a while to import
    from functrain.transforms.graph.kernels import Written

Callee = Callable[..., Any]
_UPDATE = "update"


def compiled_in_memory(
    graph: GraphModule, inputs: list[Tensor], options: Mapping[str, Any], updates: Updates | None
) -> Callee:
    """Compile a graph, or load it if it was compiled before."""
    on_cpu = all(tensor.is_cpu for tensor in inputs)
    path = kept.place(digest(graph, inputs, options, updates)) if on_cpu else None
    if path is not None and (found := kept.load(path)) is not None:
        call: Callee = found["call"]
        return call if updates is None else updates.after(call, found[_UPDATE])
    from functrain.transforms.graph.inductor import begin_update, compile_in_memory

    may_be_kept = path is not None and is_plain(graph)
    outputs = len(graph.graph.output_node().args[0])  # type: ignore[arg-type]
    begun = None if updates is None else begin_update(updates)
    compiled, written = compile_in_memory(graph, inputs, options)
    library = None if begun is None else begun()
    if path is not None and may_be_kept and len(written) == 1:
        last = [] if library is None else [(library.__file__, [_UPDATE])]
        _keep(path, written[0], last, (len(inputs), outputs))
    if updates is None or library is None:
        return compiled
    return updates.after(compiled, library.kernels()[0])


def _keep(
    path: Path, written: Written, last: list[tuple[str, list[str]]], counts: tuple[int, int]
) -> None:
    kernels = {name for _, names in written.libraries for name in names}
    code = standalone(Path(written.path).read_text(), kernels, *counts)
    if code is not None:
        with contextlib.suppress(OSError):  # the disk may be full; this process needs no entry
            libraries = [kept.Library.at(*one) for one in [*written.libraries, *last]]
            kept.save(path, code, libraries)
