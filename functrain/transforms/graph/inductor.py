"""Inductor, torch's compiler: all calls of its private functions. It takes a while to import."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._functorch.compile_utils import fx_graph_cse
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, GraphModule

from functrain.errors.base import FunctrainWarning, warn
from functrain.transforms.graph.loops import Updates

if TYPE_CHECKING:
    from functrain.transforms.graph.kernels import Written

Callee = Callable[..., Any]


class CommonSubexpressions(CustomGraphPass):
    """Merge common subexpressions: the rule of every parameter has the same bias corrections.

    The pass runs where nothing in the graph writes to anything, except its last operations.
    """

    def __call__(self, graph: Graph) -> None:
        merged = fx_graph_cse(graph)
        if (module := graph.owning_module) is not None:
            module.graph = merged

    def uuid(self) -> Any:
        """Tell a cache of compiled graphs whether the pass is still the same."""
        kernels = str(Path(__file__).with_name("kernels.py"))
        return get_hash_for_files((__file__, kernels))


# Inputs are checked before the call, at a tenth of the cost.
_OPTIONS = {"size_asserts": False, "post_grad_custom_pre_pass": CommonSubexpressions()}


def compile_in_memory(
    graph: GraphModule, inputs: list[Tensor], options: Mapping[str, Any]
) -> tuple[Callee, list[Written]]:
    """Compile a graph; Inductor keeps the parts in a cache of its own.

    Returns:
        The compiled graph, and the modules that were loaded for it.

    One library for all kernels takes private parts of Inductor. Where a version of torch has
    changed them, Inductor compiles in its own way, to the same bytes.
    """
    with torch._inductor.config.patch({**_fast(), **_OPTIONS, **options}):
        try:
            from functrain.transforms.graph.kernels import begin_to_test_instructions, one_library

            tested = begin_to_test_instructions()
            import_module("torch._inductor.compile_fx")  # takes as long
            tested()
            with one_library() as written:
                return _compiled(graph, inputs), written
        except Exception as error:  # not hidden: raised again by Inductor itself, or in the warning
            call = _compiled(graph, inputs)
            text = f"{type(error).__name__}: {error}".partition("\n")[0]
    warn(
        f"torch {torch.__version__} compiles each kernel by itself, which takes longer, because "
        f"compiling them together failed: {text}. Please report it",
        FunctrainWarning,
    )
    return call, []


def begin_update(updates: Updates) -> Callable[[], Any]:
    """Begin to compile updates of a graph, and return a function that waits for the library.

    The ``kernels()`` of the library are a list with the update.
    """
    from functrain.transforms.graph import kernels

    with torch._inductor.config.patch(_fast()):
        return kernels.begin_update(updates.source, updates.given)


def _compiled(graph: GraphModule, inputs: list[Tensor]) -> Callee:
    call: Callee = torch._inductor.standalone_compile(
        graph, list(inputs), dynamic_shapes="from_example_inputs"
    )
    return call


def compile_to_file(
    path: Path,
    graph: GraphModule,
    inputs: list[Tensor],
    options: Mapping[str, Any],
    updates: Updates | None = None,
) -> None:
    """Compile a graph ahead of time into a library, and its updates into one next to it."""
    begun = None if updates is None else begin_update(updates)
    from torch._inductor.package.package import package_aoti

    from functrain.transforms.graph.kernels import copy_update

    path.parent.mkdir(parents=True, exist_ok=True)
    # First in a directory next to it: a process that finds the name finds the whole file.
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        # In the cache that processes share, another one that compiles the same graph may be
        # writing to the parts again while they are packed: torch's lock ends before that.
        parts = {"aot_inductor.package": True, "aot_inductor.output_path": f"{directory}/parts"}
        with warnings.catch_warnings():
            # torch 2.13 raises this warning in its own code.
            warnings.filterwarnings("ignore", message="`isinstance\\(treespec, LeafSpec\\)`")
            files: Any = torch._inductor.aot_compile(
                graph, tuple(inputs), options={**_without_trials(), **_OPTIONS, **options, **parts}
            )
        package_aoti(str(Path(directory) / "step.pt2"), files)
        try:
            if begun is not None:  # first: a process that finds the other file finds both
                copy_update(begun(), path.with_suffix(".so"))
            os.replace(Path(directory) / "step.pt2", path)
        except BaseException:
            if not path.exists():  # which another process may have put there meanwhile
                path.with_suffix(".so").unlink(missing_ok=True)
            raise


def _fast() -> dict[str, Any]:
    # A precompiled header takes as long as three libraries without one.
    return {**_without_trials(), "cpp_cache_precompile_headers": False}


def _without_trials() -> dict[str, Any]:
    """Return a setting with which Inductor skips builds that only try vector instructions.

    They take as long as the kernels of a small model. torch knows already what the processor has,
    and the tests of newer instructions stay. A choice of the user's, as by the environment variable
    ``TORCHINDUCTOR_VEC_ISA_OK``, is left alone.
    """
    chosen = torch._inductor.config.cpp.vec_isa_ok is not None
    return {} if chosen else {"cpp.vec_isa_ok": True}
