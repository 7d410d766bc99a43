"""Graphs as callables: by Inductor, in memory or ahead of time, or by any other backend."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from functrain.errors import CompilationError, CompileCacheWarning
from functrain.errors.base import warn
from functrain.transforms.graph.libraries import library
from functrain.transforms.graph.waiting import waiting_line
from functrain.transforms.torch_internals import (
    arguments,
    compile_in_memory,
    dynamo_backend,
    mode_options,
)

Callee = Callable[..., Any]


@attrs.frozen
class Lowering:
    """How graphs are compiled.

    Attributes:
        backend: ``"inductor"``, or a name or function that ``torch.compile`` takes as backend.
        mode: a mode of ``torch.compile``, for Inductor.
        options: settings of Inductor by name.
        directory: where to keep libraries compiled ahead of time; without one, Inductor compiles in
            memory and keeps the parts in a cache of its own.
        limit: how many bytes to keep there; the library used longest ago goes first.
    """

    backend: str | Callee = "inductor"
    mode: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    directory: Path | None = None
    limit: int | None = None

    @property
    def description(self) -> str:
        """A text that tells its numbers from those of other ways to compile."""
        parts = [str(getattr(self.backend, "__qualname__", self.backend))]
        if self.directory is not None:
            parts.append("ahead of time")
        if self.mode is not None:
            parts.append(f"mode={self.mode}")
        return ", ".join(
            [*parts, *(f"{key}={self.options[key]!r}" for key in sorted(self.options))]
        )

    def compile(self, graph: GraphModule, inputs: list[Tensor]) -> Callee:
        """Return a callable that does what a graph does."""
        try:
            with waiting_line(f"compiling {len(graph.graph.nodes):,} operations"):
                return self._by_backend(graph, inputs)
        except Exception as error:
            raise CompilationError(f"{type(error).__name__}: {error}") from error

    def _by_backend(self, graph: GraphModule, inputs: list[Tensor]) -> Callee:
        if self.backend == "inductor":
            return self._by_inductor(graph, inputs)
        if self.backend == "eager":
            return graph
        if callable(self.backend):
            return cast(Callee, self.backend(graph, inputs))
        return cast(Callee, dynamo_backend(self.backend)(graph, inputs))

    def _by_inductor(self, graph: GraphModule, inputs: list[Tensor]) -> Callee:
        options = {**_options_of_mode(self.mode), **self.options}
        loosen(graph)
        if self.directory is not None:
            try:
                return library(self.directory, graph, inputs, options, self.limit)
            except Exception as error:  # not hidden: raised again, or in the warning
                if self.limit is None:  # the user chose the directory
                    raise
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            warn(
                "compiled code is not kept, so a resumed run compiles again: torch can compile "
                f"this step, but not ahead of time ({reason})",
                CompileCacheWarning,
            )
        return compile_in_memory(graph, inputs, options)


def _options_of_mode(mode: str | None) -> dict[str, Any]:
    """Return the settings of a mode of ``torch.compile``, except CUDA graphs.

    Inductor's CUDA graphs keep their results in memory of their own until the next call of
    ``torch.compile``, by which they tell steps apart. A step is no such call, and a state is kept.
    """
    found = {} if mode is None else mode_options(mode)
    return {name: value for name, value in found.items() if name != "triton.cudagraphs"}


def loosen(module: GraphModule) -> None:
    """Turn each ``view`` of memory that nothing writes to into a ``reshape``.

    A graph is captured with the strides of eager torch. Inductor's decompositions may have others:
    it concatenates a tensor with an empty one, as key-value caches of transformers do at first, by
    a clone, which stays transposed. A recorded ``view`` is impossible then; ``reshape`` is the same
    view where it can be one, and copies where it cannot.
    """
    roots: dict[Node, Node] = {}  # the node in whose memory the value of a view lies
    written = set[Node]()
    for node in module.graph.nodes:
        if node.target is operator.getitem:
            roots[node] = roots.get(node.args[0], node.args[0])
        for schema, value in arguments(node.target, node.args, node.kwargs):
            if schema.alias_info is not None and isinstance(value, Node):
                roots.setdefault(node, roots.get(value, value))
            if schema.is_write:
                map_arg(value, lambda one: written.add(roots.get(one, one)))
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        if roots[node] not in written:
            node.target = torch.ops.aten.reshape.default
    module.recompile()
