"""Graphs as callables: by Inductor, in memory or ahead of time, or by any other backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from torch import Tensor
from torch.fx import GraphModule

from functrain.errors import CompilationError

Callee = Callable[..., Any]


@attrs.frozen
class Lowering:
    """How graphs are compiled.

    Attributes:
        backend: ``"inductor"``, or a name or function that ``torch.compile`` takes as backend.
        mode: a mode of ``torch.compile``, for Inductor.
        options: settings of Inductor by name.
        directory: where to keep what is compiled ahead of time; without one, Inductor compiles in
            memory and keeps the parts in a cache of its own.
        limit: how many bytes to keep there; what was used longest ago goes first.
    """

    backend: str | Callee = "inductor"
    mode: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    directory: Path | None = None
    limit: int | None = None

    @property
    def description(self) -> str:
        """What may tell its numbers from those of other ways to compile."""
        parts = [str(getattr(self.backend, "__qualname__", self.backend))]
        if self.directory is not None:
            parts.append("ahead of time")
        if self.mode is not None:
            parts.append(f"mode={self.mode}")
        return ", ".join(
            [*parts, *(f"{key}={self.options[key]!r}" for key in sorted(self.options))]
        )

    def compile(self, graph: GraphModule, inputs: list[Tensor]) -> Callee:
        """A callable that does what a graph does.

        Args:
            graph: a function of the tensors one by one.
            inputs: tensors like those it will be given.

        Raises:
            CompilationError: the backend failed; there may be no C++ compiler.
        """
        try:
            if self.backend == "inductor":
                return self._by_inductor(graph, inputs)
            if self.backend == "eager":
                return graph
            if callable(self.backend):
                return cast(Callee, self.backend(graph, inputs))
            return cast(Callee, torch._dynamo.lookup_backend(self.backend)(graph, inputs))
        except Exception as error:
            raise CompilationError(f"{type(error).__name__}: {error}") from error

    def _by_inductor(self, graph: GraphModule, inputs: list[Tensor]) -> Callee:
        from functrain.transforms.graph.once_each import OnceEach

        options = {
            # Inputs are checked before the call, at a tenth of the cost.
            "size_asserts": False,
            "post_grad_custom_pre_pass": OnceEach(),
            **_of_mode(self.mode),
            **self.options,
        }
        call: Callee
        if self.directory is not None:
            from functrain.transforms.graph.ahead import compiled_ahead, prune

            call = compiled_ahead(self.directory, graph, inputs, options)
            if self.limit is not None:
                prune(self.directory, self.limit)
            return call
        with torch._inductor.config.patch(options):
            call = torch._inductor.standalone_compile(
                graph, list(inputs), dynamic_shapes="from_example_inputs"
            )
        return call


def _of_mode(mode: str | None) -> dict[str, Any]:
    """What a mode sets, but for CUDA graphs.

    Those of Inductor keep what they return in memory of their own until the next call of
    ``torch.compile``, by which they tell steps apart. A step is no such call, and a state is kept.
    """
    found: dict[str, Any] = torch._inductor.list_mode_options(mode) if mode else {}
    return {name: value for name, value in found.items() if name != "triton.cudagraphs"}
