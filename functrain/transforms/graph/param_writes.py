"""Parameters that a forward writes to, as a capture sees them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain.core.in_place_writes import InPlaceWrites
from functrain.core.state import Tensors
from functrain.transforms.torch_internals import (
    TorchDispatchMode,
    arguments,
    assign,
    tree_leaves,
)
from functrain.tree.torch_internals import memory_of

T = TypeVar("T")


class WriteRecorder:
    """A context that records writes to parameters, and remembers them at its end.

    Args:
        params: all parameters, on memory of their own.
        written: remembers the parameters that were written to.
    """

    def __init__(self, params: Tensors, written: InPlaceWrites) -> None:
        self.written = written
        self.memory = {memory_of(tensor): path for path, tensor in params.items()}
        self.touched: set[int] = set()
        self.modes = contextlib.ExitStack()

    def __enter__(self) -> None:
        self.modes.enter_context(_Operations(self.touched))
        self.modes.enter_context(_Assignments(self.touched))

    def __exit__(self, *raised: Any) -> None:
        self.modes.__exit__(*raised)
        self.written.paths |= {self.memory[one] for one in self.touched & self.memory.keys()}


def capture_with_copies(capture: Callable[[], T], written: InPlaceWrites) -> T:
    """Capture a step; if it writes to parameters not known before, capture it again with copies."""
    known = len(written.paths)
    captured = capture()
    return captured if len(written.paths) == known else capture()


class _Operations(TorchDispatchMode):
    """Records operations that write to a tensor."""

    def __init__(self, touched: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.touched = touched

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for argument, value in arguments(func, args, kwargs):
            if argument.is_write:
                leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
                self.touched.update(map(memory_of, leaves))
        return func(*args, **kwargs)


class _Assignments(TorchFunctionMode):
    """Records ``tensor.data = values`` and ``tensor.set_(values)``, which are no operations."""

    def __init__(self, touched: set[int]) -> None:
        super().__init__()
        self.touched = touched

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sets = func is Tensor.set_ and len(args) == 2 and isinstance(args[1], Tensor)
        if not sets and func != Tensor.data.__set__:  # type: ignore[attr-defined]
            return func(*args, **(kwargs or {}))
        tensor, values = args
        self.touched.add(memory_of(tensor))
        assign(tensor, values.detach())
        return tensor if sets else None
