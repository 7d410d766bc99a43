"""Private parts of torch that transformations use: a new release of torch may move them.

Inductor takes seconds to import, so the functions that need it do so themselves.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.autograd.forward_ad
from torch import Tensor
from torch._functorch.eager_transforms import (
    _create_differentiable,
    _undo_create_differentiable,
    _wrap_all_tensors,
    grad_increment_nesting,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import (
    get_proxy_mode,
    get_proxy_slot,
    make_fx,
    set_proxy_slot,
)
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = [
    "FakeTensorMode",
    "GradLevel",
    "TorchDispatchMode",
    "allow_nested_tracing",
    "arguments",
    "assign",
    "compile_in_memory",
    "compile_package",
    "dynamo_backend",
    "grad_level",
    "inductor_settings",
    "is_compiling",
    "is_in_place",
    "is_traceable_wrapper_subclass",
    "is_transforming",
    "load_package",
    "make_fx",
    "mode_options",
    "signature",
    "tree_leaves",
    "tree_map_only",
]

Callee = Callable[..., Any]
_FEW_CALLS = 100  # more of them take the compiler longer than kernels one by one
_IN_LIBRARIES = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")


def is_compiling() -> AbstractContextManager[None]:
    """Let ``torch.compiler.is_compiling()`` be true: torch has no public context that does."""
    if hasattr(torch.compiler, "_compile_session_context"):  # torch 2.13
        found: AbstractContextManager[None] = torch.compiler._compile_session_context()
        return found
    from torch._export.utils import _compiling_state_context

    return _compiling_state_context()


def allow_nested_tracing() -> AbstractContextManager[Any]:
    """Let a function that ``torch.compile`` wraps be captured as part of another."""
    found: AbstractContextManager[Any] = torch._dynamo.config.patch(error_on_nested_fx_trace=False)
    return found


def is_transforming() -> bool:
    """Return whether this code runs under ``torch.func`` or in forward mode."""
    functorch: Any = torch._C._functorch
    return (
        functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0
    )


class GradLevel(NamedTuple):
    """A level of ``torch.func`` on which gradients are taken."""

    number: int

    def wrap(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return the tensors as ones of this level."""
        wrapped: list[Tensor] = _wrap_all_tensors(tensors, self.number)
        return wrapped

    def require_grad(self, tensor: Tensor) -> None:
        """Record what is computed of a tensor of this level."""
        _create_differentiable(tensor, self.number)

    def unwrap(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """Return tensors of this level as ones of the level around it."""
        unwrapped: tuple[Tensor, ...] = _undo_create_differentiable(tuple(tensors), self.number)
        return unwrapped


@contextlib.contextmanager
def grad_level() -> Iterator[GradLevel]:
    """Take gradients below ``vmap``.

    ``torch.func.grad`` gives zeros for what a loss does not depend on; ``torch.autograd.grad`` on
    such a level tells the two apart.
    """
    with grad_increment_nesting() as number:
        yield GradLevel(number)


def assign(tensor: Tensor, values: Tensor) -> None:
    """Set ``tensor.data = values``, and tell a capture that identifies tensors by their object."""
    tensor.data = values
    if (mode := get_proxy_mode()) is not None:
        set_proxy_slot(tensor, mode.tracer, get_proxy_slot(values, mode.tracer))


def arguments(operation: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what the schema of an operation says of each argument, with its value."""
    schema = getattr(operation, "_schema", None)
    for number, argument in enumerate(schema.arguments if schema is not None else ()):
        yield argument, args[number] if number < len(args) else kwargs.get(argument.name)


def is_in_place(operation: Any) -> bool:
    """Return whether an operation writes to one of its arguments."""
    found: bool = operation._schema.is_mutable
    return found


def signature(operation: Any) -> str:
    """Return the schema of an operation as text."""
    return str(operation._schema)


def dynamo_backend(name: str) -> Any:
    """Return a backend of ``torch.compile`` by its name."""
    return torch._dynamo.lookup_backend(name)


def mode_options(mode: str) -> dict[str, Any]:
    """Return the settings of Inductor that a mode of ``torch.compile`` stands for."""
    found: dict[str, Any] = torch._inductor.list_mode_options(mode)
    return found


def inductor_settings() -> list[Any]:
    """Return the global settings of Inductor and of what comes before it."""
    import torch._functorch.config
    import torch._inductor.config

    settings = torch._inductor.config.save_config_portable()
    settings.pop("aot_inductor.metadata", None)  # not a setting: compiling fills it in
    before = torch._functorch.config.save_config_portable()
    return [sorted(settings.items()), sorted(before.items())]


def compile_in_memory(
    graph: GraphModule, inputs: list[Tensor], options: Mapping[str, Any]
) -> Callee:
    """Compile a graph by Inductor, whose own cache keeps it for later processes.

    On the CPU kernels and calls are one C++ file, where there are not too many calls: by itself
    each kernel would take the compiler as long as all of them together. Inductor cannot compile
    every graph in that way.
    """
    on_cpu = all(tensor.is_cpu for tensor in inputs)
    if on_cpu and _library_calls(graph) <= _FEW_CALLS and "cpp_wrapper" not in options:
        try:
            return _compile(graph, inputs, {"cpp_wrapper": True, **options})
        except Exception:  # not hidden: raised again by the other way
            pass
    return _compile(graph, inputs, options)


def _library_calls(graph: GraphModule) -> int:
    """Return how many operations Inductor leaves to a library."""
    names = [str(node.target).split(".") for node in graph.graph.nodes]
    return sum(len(name) > 1 and name[1] in _IN_LIBRARIES for name in names)


def _compile(graph: GraphModule, inputs: list[Tensor], options: Mapping[str, Any]) -> Callee:
    with torch._inductor.config.patch({**_settings(), **options}):
        call: Callee = torch._inductor.standalone_compile(
            graph, list(inputs), dynamic_shapes="from_example_inputs"
        )
    return call


def compile_package(
    path: Path, graph: GraphModule, inputs: list[Tensor], options: Mapping[str, Any]
) -> None:
    """Compile a graph ahead of time into a package with a library."""
    from torch._inductor.package.package import package_aoti

    # In the cache that processes share, another one that compiles the same graph may be writing
    # to the parts again while they are packed: torch's lock ends before that.
    with tempfile.TemporaryDirectory(dir=path.parent) as directory, warnings.catch_warnings():
        # torch 2.13 raises this warning in its own code.
        warnings.filterwarnings("ignore", message="`isinstance\\(treespec, LeafSpec\\)`")
        parts = {"aot_inductor.package": True, "aot_inductor.output_path": f"{directory}/parts"}
        options = {**_settings(), **options, **parts}
        files: Any = torch._inductor.aot_compile(graph, tuple(inputs), options=options)
        package_aoti(str(path), files)


def load_package(path: Path) -> Callee:
    """Load a graph that was compiled ahead of time.

    Raises:
        RuntimeError: the file is damaged, or of another machine.
    """
    # The same call as in torch._inductor.aoti_load_package, which imports Inductor.
    loader: Any = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)

    def call(*leaves: Tensor) -> Any:
        return loader.boxed_run(list(leaves))

    return call


def _settings() -> dict[str, Any]:
    """Return the settings of Inductor that differ from its own."""
    found = {
        "size_asserts": False,  # the form of the inputs is checked before the call
        "cpp_cache_precompile_headers": False,  # one header takes as long as three libraries
    }
    # Inductor would try each kind of vector instruction by a build, which takes as long as the
    # kernels of a small model; torch knows what the processor has. A choice of the user's stays.
    if torch._inductor.config.cpp.vec_isa_ok is None:
        found["cpp.vec_isa_ok"] = True
    return found
