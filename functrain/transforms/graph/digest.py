"""A name for what a graph is compiled to: equal names are the same code."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from xxhash import xxh3_128

from functrain.transforms.graph.inputs import form
from functrain.transforms.graph.loops import Updates

# Changes to these files change the code of a graph.
_COMPILING = ("inductor.py", "kernels.py", "kept.py", "standalone.py")
_OF_TORCH = ("aten", "prims", "higher_order")


def digest(
    graph: GraphModule,
    inputs: list[Tensor],
    options: Mapping[str, Any],
    updates: Updates | None = None,
) -> str:
    """Return a name for what a graph is compiled to: equal ones are the same code."""
    settings = sorted((name, _identity(value)) for name, value in options.items())
    forms = [form(tensor) for tensor in inputs]
    rest = (_own_operations(graph), _surroundings(inputs), settings, forms, updates)
    found = xxh3_128(f"{_code(graph)}{rest}".encode())
    for name, constant in sorted([*graph.named_parameters(), *graph.named_buffers()]):
        value = constant.detach().cpu().contiguous()
        found.update(f"{name}{form(value)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _code(graph: GraphModule) -> dict[str, str]:
    """Return the code of a graph and of the graphs in it, which control flow has."""
    modules = graph.named_modules()
    return {name: one.code for name, one in modules if isinstance(one, GraphModule)}


def _own_operations(graph: GraphModule) -> list[object]:
    """Return the schemas of operations of a user, and the forms of what they return.

    Code has them built in, while the operation itself is called by its name.
    """
    nodes = [
        node for one in graph.modules() if isinstance(one, GraphModule) for node in one.graph.nodes
    ]
    own = [node for node in nodes if getattr(node.target, "namespace", "aten") not in _OF_TORCH]
    # Without a form it is never the same again.
    return [(str(node.target._schema), form(node.meta.get("val", os.urandom(16)))) for node in own]


def _surroundings(inputs: list[Tensor]) -> tuple[object, ...]:
    """Return everything outside a graph that decides its code."""
    devices = {str(tensor.device) for tensor in inputs}
    mkldnn: Any = torch.backends.mkldnn
    deterministic: Any = torch.utils.deterministic
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    return (
        torch.__version__,
        torch.version.git_version,
        _own_code(),
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
        settings_digest(),
    )


def settings_digest() -> str:
    """Return a digest of the global settings of Inductor and of what comes before it."""
    import torch._functorch.config
    import torch._inductor.config

    settings = torch._inductor.config.save_config_portable()
    settings.pop("aot_inductor.metadata", None)  # not a setting: compiling fills it in
    before = torch._functorch.config.save_config_portable()
    return xxh3_128(repr([sorted(settings.items()), sorted(before.items())]).encode()).hexdigest()


@functools.cache
def _own_code() -> str:
    texts = (Path(__file__).with_name(name).read_bytes() for name in _COMPILING)
    return xxh3_128(b"".join(texts)).hexdigest()


def _identity(value: Any) -> str:
    """Return a text for a setting; one that has no text of its own is never the same again."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return str([type(value), *map(_identity, value)])
    identity = value.uuid() if hasattr(value, "uuid") else None
    return os.urandom(16).hex() if identity is None else repr(identity)
