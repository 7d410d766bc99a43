"""Record which parameters a captured function writes to, by operations or by ``.data =``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain.core.in_place_writes import InPlaceWrites
from functrain.core.state import Tensors
from functrain.transforms.graph.capture import Captured
from functrain.transforms.graph.torch_internals import (
    TorchDispatchMode,
    get_proxy_mode,
    get_proxy_slot,
    set_proxy_slot,
    tree_leaves,
)


class WriteRecorder:
    """A context that records writes to parameters, and remembers them at its end.

    Args:
        params: all parameters, on memory of their own.
        written: remembers the parameters that were written to.
    """

    def __init__(self, params: Tensors, written: InPlaceWrites) -> None:
        self.written = written
        self.memory = {_memory(tensor): path for path, tensor in params.items()}
        self.touched: set[int] = set()
        self.modes = contextlib.ExitStack()

    def __enter__(self) -> None:
        self.modes.enter_context(_Operations(self.touched))
        self.modes.enter_context(_Assignments(self.touched))

    def __exit__(self, *raised: Any) -> None:
        self.modes.__exit__(*raised)
        self.written.paths |= {self.memory[one] for one in self.touched & self.memory.keys()}


def capture_with_copies(capture: Callable[[], Captured], written: InPlaceWrites) -> Captured:
    """Capture a step; if it writes to parameters not known before, capture it again with copies.

    Args:
        capture: captures a function that records its writes.
        written: remembers them.
    """
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
        if func._schema.is_mutable:
            given = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)}
            given |= kwargs
            for argument in func._schema.arguments:
                if argument.is_write:
                    leaves = tree_leaves(given.get(argument.name))
                    self.touched |= {_memory(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        return func(*args, **kwargs)


class _Assignments(TorchFunctionMode):
    """Records ``tensor.data = values`` and ``tensor.set_(values)``, which are no operations.

    A tensor without data takes the other's memory as any tensor does. But the capture identifies
    tensors by Python object, so it must be notified that this one now stands for other values.
    """

    def __init__(self, touched: set[int]) -> None:
        super().__init__()
        self.touched = touched

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sets = func is Tensor.set_ and len(args) == 2 and isinstance(args[1], Tensor)
        if not sets and func != Tensor.data.__set__:  # type: ignore[attr-defined]
            return func(*args, **(kwargs or {}))
        tensor, values = args
        self.touched.add(_memory(tensor))
        _assign(tensor, values.detach())
        return tensor if sets else None


def _assign(tensor: Tensor, values: Tensor) -> None:
    tensor.data = values
    if (mode := get_proxy_mode()) is not None:
        set_proxy_slot(tensor, mode.tracer, get_proxy_slot(values, mode.tracer))


def _memory(tensor: Tensor) -> int:
    place: int = tensor.untyped_storage()._cdata
    return place
