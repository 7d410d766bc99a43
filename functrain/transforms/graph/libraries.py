"""Steps compiled ahead of time: a library in a file, which the next process loads at once.

It takes longer to compile than what is compiled in memory, and less to call: nothing of a call is
Python. The file's name is a digest of the graph and of everything its code depends on, so a library
with that name is the one that would be compiled.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from xxhash import xxh3_128

from functrain.transforms import torch_internals
from functrain.transforms.graph.inputs import form, form_of_tensors
from functrain.transforms.torch_internals import (
    compile_package,
    inductor_settings,
    load_package,
    signature,
)

Callee = Callable[..., Any]
_OF_TORCH = ("aten", "prims", "higher_order")


def library(
    directory: Path,
    graph: GraphModule,
    inputs: list[Tensor],
    options: Mapping[str, Any],
    limit: int | None = None,
) -> Callee:
    """Load the library of a graph, which is compiled if it is not there yet.

    Libraries are code: load only those that you trust. Others go where all together have more
    bytes than the ``limit``.
    """
    path = directory / f"{digest(graph, inputs, options)}.pt2"
    call = _load_if_intact(path)
    if call is None:
        directory.mkdir(parents=True, exist_ok=True)
        # First in a directory next to it: a process that finds the name finds the whole file.
        with tempfile.TemporaryDirectory(dir=directory) as building:
            made = Path(building) / "step.pt2"
            compile_package(made, graph, inputs, options)
            os.replace(made, path)
        call = load_package(path)
    if limit is not None:
        prune(directory, limit)
    return call


def _load_if_intact(path: Path) -> Callee | None:
    """Load a library and note that it is used, if it is there and not damaged."""
    if not path.exists():
        return None
    try:
        call = load_package(path)
    except RuntimeError:
        path.unlink(missing_ok=True)  # damaged, or of another machine
        return None
    with contextlib.suppress(OSError):  # it may be another user's, or removed by now
        os.utime(path)
    return call


def prune(directory: Path, limit: int) -> None:
    """Remove the libraries that were used longest ago until the rest is within a limit."""
    found = []
    for path in directory.glob("*.pt2"):
        with contextlib.suppress(FileNotFoundError):  # another process may prune too
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    total = 0
    for number, (_, size, path) in enumerate(sorted(found, reverse=True)):
        total += size
        if number and total > limit:
            path.unlink(missing_ok=True)


def digest(graph: GraphModule, inputs: list[Tensor], options: Mapping[str, Any]) -> str:
    """Return a name for what a graph is compiled to: equal ones are the same code."""
    inside = {name: one for name, one in graph.named_modules() if isinstance(one, GraphModule)}
    code = {name: one.code for name, one in inside.items()}
    nodes = [node for one in inside.values() for node in one.graph.nodes]
    settings = sorted((name, _identity(value)) for name, value in options.items())
    rest = (_own_operations(nodes), _surroundings(inputs), settings, form_of_tensors(inputs))
    found = xxh3_128(f"{code}{rest}".encode())
    for name, constant in sorted([*graph.named_parameters(), *graph.named_buffers()]):
        value = constant.detach().cpu().contiguous()
        found.update(f"{name}{form_of_tensors([value])}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _own_operations(nodes: list[torch.fx.Node]) -> list[object]:
    """Return the schemas of operations of a user, and the forms of what they return.

    Code has them built in, while the operation itself is called by its name.
    """
    own: list[Any] = [n for n in nodes if getattr(n.target, "namespace", "aten") not in _OF_TORCH]
    # Without a form it is never the same again.
    values = [node.meta.get("val", os.urandom(16)) for node in own]
    return [(signature(one.target), form(value)[0]) for one, value in zip(own, values, strict=True)]


def _surroundings(inputs: list[Tensor]) -> tuple[object, ...]:
    """Return everything outside a graph that decides its code."""
    devices = {str(tensor.device) for tensor in inputs}
    mkldnn: Any = torch.backends.mkldnn
    deterministic: Any = torch.utils.deterministic
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    return (
        torch.__version__,
        torch.version.git_version,
        Path(torch_internals.__file__).read_text(),  # how it is compiled
        torch.backends.cpu.get_cpu_capability(),
        # Kernels use all instructions of this processor.
        None if capabilities is None else sorted(capabilities().items()),
        torch.get_num_threads(),
        [torch.cuda.get_device_name(name) for name in sorted(devices) if "cuda" in name],
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        deterministic.fill_uninitialized_memory,
        torch.get_float32_matmul_precision(),
        (mkldnn.is_available(), mkldnn.enabled, mkldnn.deterministic),
        inductor_settings(),
    )


def _identity(value: Any) -> str:
    """Return a text for a setting; one that has no text of its own is never the same again."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return str([type(value), *map(_identity, value)])
    identity = value.uuid() if hasattr(value, "uuid") else None
    return os.urandom(16).hex() if identity is None else repr(identity)
