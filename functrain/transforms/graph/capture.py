"""A Python function of tensors as a graph of tensor operations.

The function runs once, on tensors without data, and every operation it makes is written down
(``torch.fx.experimental.proxy_tensor.make_fx``, which sees below autograd: the backward pass is
part of the graph). No Python is left at run time, so a captured step costs no guards and no
interpreter. Side effects of the Python code are detected here; they would be lost otherwise.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sysconfig
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import FrameSummary, extract_tb
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from functrain.core.rng import scoped
from functrain.errors import CaptureError, FunctrainError
from functrain.transforms.graph.effects import (
    Effects,
    SameDraws,
    grown_unseen,
    written_constant,
)
from functrain.transforms.graph.inputs import alike, flatten, require_dense, with_tensors
from functrain.transforms.graph.waiting import waiting_line
from functrain.transforms.torch_internals import (
    FakeTensorMode,
    allow_nested_tracing,
    is_compiling,
    make_fx,
)

_PACKAGE = Path(__file__).parents[2]
_OWN = tuple(f"{path}{os.sep}" for path in (Path(torch.__file__).parent, _PACKAGE))
_ONE_AT_A_TIME = threading.RLock()  # what a capture switches is the process's
_PACKAGES = tuple(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
_LIBRARIES = (sysconfig.get_paths()["stdlib"], *_PACKAGES)
_EXAMPLES = str(_PACKAGE / "examples")


class Captured(NamedTuple):
    """A graph, and what it returns.

    Attributes:
        graph: a function of the tensors of a tree, one by one, that returns a list of tensors.
        returned: the tree that they are the leaves of.
        draws: whether random numbers are drawn.
    """

    graph: GraphModule
    returned: dict[str, Any]
    draws: bool


def capture(
    function: Callable[[Any], dict[str, Any]], inputs: dict[str, Any], module: nn.Module
) -> Captured:
    """Record the operations of a function of a tree of tensors as a graph.

    The function may write to the tensors, and returns a tree of them. Of the inputs their form
    counts. That nothing in the module is changed is checked; a ``CaptureError`` names the line of
    the user's code.
    """
    require_dense(inputs)
    returned: dict[str, Any] = {}
    randomness = SameDraws()

    def flat(*tensors: Tensor) -> list[Tensor]:
        with randomness:
            returned.update(function(with_tensors(inputs, iter(tensors))))
        return flatten(returned)

    # Without an environment for symbols, code that looks at a value fails at once.
    with FakeTensorMode(allow_non_fake_inputs=True):
        placeholders = list(map(alike, flatten(inputs)))
    traced = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)
    constants: set[int] = set()
    with _ONE_AT_A_TIME, _surroundings(), waiting_line("recording the operations of a step"):
        # Inside, because the scope restores the generators at its end.
        before = Effects.of(module)
        try:
            graph = traced(*placeholders)
            constants = {id(tensor) for tensor in _constants(graph)}
        except FunctrainError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CaptureError(reason, *_lines_at_fault(error)) from error
        finally:
            done = before.undone(constants)
    if done := done or written_constant(graph) or grown_unseen(graph):
        raise CaptureError(done, None)
    # The tensors in it belong to the capture, and would keep the whole of it.
    anything = itertools.repeat(torch.empty(()))
    return Captured(graph, with_tensors(returned, anything), randomness.draws)


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """Set the global switches that a capture needs, while it lasts."""
    with (
        warnings.catch_warnings(),
        # A part that the user compiled on their own is taken in.
        torch.compiler.set_stance("force_eager"),
        # Packages ask torch.compiler.is_compiling() before they look at values.
        is_compiling(),
        allow_nested_tracing(),
        scoped(0, None),
    ):
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        # Its recurrent layers need tensors of their own kind, which a graph cannot hold.
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _constants(graph: GraphModule) -> list[Tensor]:
    return [getattr(graph, node.target) for node in graph.graph.nodes if node.op == "get_attr"]


def _lines_at_fault(error: BaseException) -> tuple[str | None, str | None]:
    """Return the innermost lines of the user's code, and of a package it called, of an error."""
    frames = [frame for frame in extract_tb(error.__traceback__) if _is_theirs(frame)]
    theirs = [n for n, frame in enumerate(frames) if not frame.filename.startswith(_LIBRARIES)]
    packages = [n for n, frame in enumerate(frames) if frame.filename.startswith(_PACKAGES)]
    last = theirs[-1] if theirs else -1
    inside = packages[-1] if packages and packages[-1] > last else None
    lines = (n if n is not None and n >= 0 else None for n in (last, inside))
    where, package = (None if n is None else _line(frames[n]) for n in lines)
    return where, package


def _line(frame: FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}"


def _is_theirs(frame: FrameSummary) -> bool:
    path = str(Path(frame.filename).absolute())
    if frame.filename == "<string>" and frame.name == "<lambda>":  # code that torch wrote
        return False
    return path.startswith(_EXAMPLES) or not path.startswith(_OWN)
