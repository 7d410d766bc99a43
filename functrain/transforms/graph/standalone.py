"""The part of Inductor's code for a graph that runs without Inductor."""

from __future__ import annotations

import ast
import dis
import math
from collections.abc import Iterator
from types import CodeType, SimpleNamespace
from typing import Any

import torch
from torch.fx import GraphModule

from functrain.transforms.graph.aliases import Aliases

# Inductor defines the other functions that its code calls as `extern_kernels.NAME`.
_EXTERN = ("addmm", "baddbmm", "bmm", "convolution", "mm")
_RUNNER = "runner = Runner(partitions=[])"  # a graph in one piece


def scope_of_torch() -> dict[str, Any]:
    """Return the globals of such code, except for its kernels."""
    guards: Any = torch._C._dynamo.guards
    return {
        "torch": torch,
        "aten": torch.ops.aten,
        "device": torch.device,
        "empty_strided": torch.empty_strided,
        "empty_strided_cpu": guards._empty_strided_cpu,
        "reinterpret_tensor": guards._reinterpret_tensor,
        "alloc_from_pool": torch.ops.inductor._alloc_from_pool,
        "assert_size_stride": guards.assert_size_stride,
        "assert_alignment": guards.assert_alignment,
        "extern_kernels": SimpleNamespace(**{name: getattr(torch, name) for name in _EXTERN}),
        "inf": math.inf,
        "nan": math.nan,
        "zip": zip,
    }


def standalone(text: str, kernels: set[str], inputs: int, outputs: int) -> str | None:
    """Return the code that calls the kernels, if it needs nothing else of Inductor.

    The code defines ``call``. There is none if the module uses more than :func:`scope_of_torch` and
    the kernels, or if AOTAutograd gives it other arguments than those of the graph.
    """
    body = ast.parse(text).body
    runners = [one for one in body if isinstance(one, ast.ClassDef) and one.name == "Runner"]
    if len(runners) != 1 or _RUNNER not in text.splitlines():
        return None
    code = f"{ast.unparse(runners[0])}\n{_RUNNER}\ncall = runner.call"
    known = {*scope_of_torch(), *kernels, "Runner", "runner", "__name__"}
    if not set(_globals(compile(code, "<step>", "exec"))) <= known:
        return None
    for node in ast.walk(runners[0]):
        if isinstance(node, ast.Attribute):
            of_externs = isinstance(node.value, ast.Name) and node.value.id == "extern_kernels"
            # Operations in torch.ops.inductor are partly defined in Inductor's Python.
            if node.attr == "inductor" or (of_externs and node.attr not in _EXTERN):
                return None
    return code if _signature(runners[0]) == (inputs, outputs) else None


def is_plain(graph: GraphModule) -> bool:
    """Return whether Inductor's code for a graph is all that runs at a call.

    AOTAutograd adds code of its own where a result shares memory with an input, where the shape of
    an input changes, and under autocast.
    """
    aliases = Aliases(graph.graph)
    (output,) = graph.graph.find_nodes(op="output")
    if any(aliases.root(node).op != "call_function" for node in output.all_input_nodes):
        return False
    operations = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    if any(torch.Tag.inplace_view in getattr(one, "tags", ()) for one in operations):
        return False
    kinds = {node.op for node in graph.graph.nodes}
    # Constants are attributes of Inductor's module.
    plain = kinds <= {"placeholder", "call_function", "output"}
    return plain and not torch._C._is_any_autocast_enabled()


def _globals(code: CodeType) -> Iterator[str]:
    """Return the names that code reads from its module."""
    for one in dis.get_instructions(code):
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield one.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals(constant)


def _signature(runner: ast.ClassDef) -> tuple[int, int] | None:
    """Return how many tensors ``call`` unpacks and returns."""
    for one in runner.body:
        if isinstance(one, ast.FunctionDef) and one.name == "call":
            first, last = one.body[0], one.body[-1]
            if isinstance(first, ast.Assign) and isinstance(last, ast.Return):
                given, returned = first.targets[0], last.value
                if isinstance(given, ast.Tuple) and isinstance(returned, ast.Tuple):
                    return len(given.elts), len(returned.elts)
    return None
