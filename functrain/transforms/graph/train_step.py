"""A whole train step as one graph that writes its results over its state."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain import tree
from functrain.core import step
from functrain.core.gradients import GradientInputs, Gradients, by_autograd
from functrain.core.in_place_writes import InPlaceWrites
from functrain.core.recipe import StaticParts
from functrain.core.state import Tensors
from functrain.errors import CaptureError
from functrain.transforms.graph.capture import Captured, capture
from functrain.transforms.graph.inputs import alike, builder, flatten, with_tensors
from functrain.transforms.graph.lowering import Lowering
from functrain.transforms.graph.missing_entries import require_entries
from functrain.transforms.torch_internals import (
    TorchDispatchMode,
    get_proxy_mode,
    get_proxy_slot,
    set_proxy_slot,
    tree_leaves,
)

# Called before the first write to the state: a step that fails earlier has changed nothing.
BeforeWrite = Callable[[], None]
# From the leaves of a state and of the other inputs to the outputs of the step. It writes to the
# leaves of the state, except to scalars, which a step that raises must not change: it returns them.
# The number is the seed of the step's random stream, in which it runs.
Run = Callable[[list[Tensor], BeforeWrite, int | None], tuple[step.DeviceState, step.Outputs]]


class Graph(NamedTuple):
    """A compiled step, and whether it draws random numbers."""

    run: Run
    draws: bool


def captured_step(
    fixed: StaticParts, lowering: Lowering, state: step.DeviceState, inputs: dict[str, Any]
) -> Graph:
    """Return the graph of a step for inputs like these.

    The state has ``params, buffers, optimizer, ema`` and is not changed here; the inputs are
    ``batches, lr, ema_due`` and ``scalars``.

    Raises:
        MissingEntriesError: the state lacks entries that the step adds.
    """

    def function(leaves: list[Tensor]) -> step.Outputs:
        given = iter(leaves)
        own, rest = with_tensors(state, given), with_tensors(inputs, given)
        scalars = rest.pop("scalars")
        whole = {**own, **scalars}
        with WriteRecorder(own["params"], fixed.model.writes):
            new, outputs = step.functional(fixed, _of_fixed_shapes)(whole, **rest)
        return written_over(own, new, scalars, outputs)

    examples = [*flatten(state), *flatten(inputs)]
    made = functools.partial(capture, function, examples, fixed.model.module)
    captured = capture_with_copies(made, fixed.model.writes)
    # Not the examples themselves: where two of them share memory, that would be built in.
    call = lowering.compile(captured.graph, list(map(alike, examples)))
    build = builder(captured.returned)

    def run(
        leaves: list[Tensor], before_write: BeforeWrite, seed: int | None
    ) -> tuple[step.DeviceState, step.Outputs]:
        before_write()
        found = build(iter(call(*leaves)))
        return found["scalars"], found["outputs"]

    return Graph(run, captured.draws)


def _of_fixed_shapes(inputs: GradientInputs) -> Gradients:
    """Take gradients by autograd, and refuse a forward that changes the shape of a buffer."""
    before = {path: list(buffer.shape) for path, buffer in inputs.buffers.items()}
    found = by_autograd(inputs)
    for path, buffer in found.buffers.items():
        if list(buffer.shape) != before[path]:
            raise CaptureError(
                f"the forward changes the buffer {path!r} from {before[path]} to "
                f"{list(buffer.shape)}, and a graph needs them alike. If only the first step does "
                "so, as with observers of quantization, make that with the eager program and go "
                "on from its state",
                None,
            )
    return found


def written_over(
    state: step.DeviceState, new: step.DeviceState, scalars: dict[str, Any], outputs: step.Outputs
) -> dict[str, Any]:
    """Write the results of a step over its state, and return its scalars and outputs.

    Raises:
        MissingEntriesError: the state lacks entries that the step adds.
    """
    require_entries(state["optimizer"], new["optimizer"])
    write(state, {name: new[name] for name in state})
    # A metric may be a part of the state, which the next step writes over.
    outputs["metrics"] = {name: one.clone() for name, one in outputs["metrics"].items()}
    return {"scalars": {name: new[name] for name in scalars}, "outputs": outputs}


def write(old: Any, new: Any) -> None:
    """Write the tensors of one tree over those of another."""
    for path, target, value in _pairs(old, new):
        _write(path, target, value)


def _pairs(old: Any, new: Any, path: str = "state") -> Iterator[tuple[str, Tensor, Tensor]]:
    """Return the leaves of two trees that are not the same, with their path."""
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        if old is not new:
            yield path, old, new
    elif isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key, child in old.items():
            yield from _pairs(child, new[key], f"{path}.{key}")
    elif tree.is_node(old) and type(old) is type(new):
        for (key, one), (_, other) in zip(tree.children(old), tree.children(new), strict=True):
            yield from _pairs(one, other, f"{path}.{key}")
    elif old is not new and old != new:
        raise CaptureError(f"{path} is {old!r} before the step and {new!r} after it", None)


def _write(path: str, old: Tensor, new: Tensor) -> None:
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        raise CaptureError(
            f"{path} is {list(old.shape)} {old.dtype} before the step and {list(new.shape)} "
            f"{new.dtype} after it; a graph needs them alike",
            None,
        )
    old.copy_(new)


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
