"""The operation in which the first NaN or infinity of a step appeared.

A step that was not finite is repeated under :class:`Recorder`, which sees every operation of the
forward and the backward pass below autograd. An operation with a result that is not finite is kept
with those of its inputs that were not finite either. So the way back from the loss or a gradient
leads through operations that contributed to it: a mask of ``-inf`` before a softmax is passed by.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from functrain.core.gradients import Gradients
from functrain.tree import containers
from functrain.tree.torch_internals import memory_of

NOWHERE = (
    "the first NaN or infinity is from no operation of the model or the loss: repeated without "
    "compilation, loss and gradients of the step were finite"
)
# Memory that an operation has not written to yet has any values.
_UNWRITTEN = ("empty", "new_empty", "resize", "set_")
_TORCH, _PACKAGE = Path(torch.__file__).parent, Path(__file__).parents[1]
_OWN = tuple(str(_PACKAGE / room) for room in ("core", "distributed"))


@attrs.frozen(eq=False)
class Event:
    """An operation, or an input of the step, with values that are not finite.

    Attributes:
        number: in the order of the step.
        text: for people; empty where it is none of the user's operations.
        is_nan: whether a NaN is among the values; otherwise there are infinities only.
        causes: of its inputs, those that were not finite.
    """

    number: int
    text: str
    is_nan: bool
    causes: list[Event]


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations of a step whose results are not finite.

    Args:
        module: names the modules in which operations are made.
        inputs: tensors of the step by name.
    """

    supports_higher_order_operators = True

    def __init__(self, module: nn.Module, inputs: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {
            id(one): repr(name) if name else type(module).__name__
            for name, one in module.named_modules()
        }
        self._events: dict[int, Event] = {}
        self._storages: list[Any] = []  # kept, so that no other one takes the place of their ids
        self._forwards: dict[int, str] = {}
        self._count = 0
        for name, tensor in inputs:
            self._add(tensor, functools.partial(str, name), [])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Make an operation, and look at its results."""
        name, causes = _name(func), self._known(_tensors((args, kwargs)))
        if torch.is_grad_enabled():
            # Autograd has made the node of this operation just before.
            number = torch._C._autograd._get_sequence_nr() - 1
            self._forwards.setdefault(number, self._place(name))
        result = func(*args, **(kwargs or {}))
        if not name.startswith(_UNWRITTEN):
            for tensor in _tensors(result):
                self._add(tensor, functools.partial(self._place, name), causes)
        return result

    def origin(self, results: Iterable[Tensor]) -> str | None:
        """Return the origin of the first NaN; without one, of the first infinity; or ``None``."""
        ends = self._known(results)
        nans = [event for event in _before(ends) if event.is_nan]
        roots = [one for one in nans if one.text and not any(each.is_nan for each in one.causes)]
        first = min(roots, key=_number, default=None)
        if first is None:
            infinite = _first_infinity(ends)
            return None if infinite is None else f"the first infinity is from {infinite.text}"
        infinite = _first_infinity(first.causes)
        of = "" if infinite is None else f", of an infinity from {infinite.text}"
        return f"the first NaN is from {first.text}{of}"

    def _known(self, tensors: Iterable[Tensor]) -> list[Event]:
        """Return the events that made the values of tensors that are not finite."""
        pairs = ((self._events.get(_key(tensor)), tensor) for tensor in tensors)
        return [event for event, tensor in pairs if event is not None and _not_finite(tensor)]

    def _add(self, tensor: Tensor, text: Callable[[], str], causes: list[Event]) -> None:
        kind = _not_finite(tensor)
        if kind:
            self._count += 1
            self._events[_key(tensor)] = Event(self._count, text(), kind == "nan", causes)
            self._storages.append(tensor.untyped_storage())

    def _place(self, name: str) -> str:
        node: Any = torch._C._current_autograd_node()
        if node is not None:
            forward = self._forwards.get(node._sequence_nr())
            return f"the backward pass of {forward or node.name()}"
        return self._forward_place(name)

    def _forward_place(self, name: str) -> str:
        """Return an operation of the user with its module and line; ``""`` for any other."""
        frame: FrameType | None = sys._getframe()
        line = module = None
        while frame is not None and module is None:
            file = frame.f_code.co_filename
            if line is None and file.startswith(_OWN):
                return ""
            if line is None and not file.startswith(str(_TORCH)) and file != __file__:
                line = f"{file}:{frame.f_lineno}"
            module = self._names.get(id(frame.f_locals.get("self")))
            frame = frame.f_back
        where = "" if module is None else f" in the module {module}"
        return f"{name}{where}{'' if line is None else f' ({line})'}"


def located(
    module: nn.Module,
    state: Mapping[str, Any],
    batches: Any,
    compute: Callable[[], Gradients],
) -> tuple[Gradients, str]:
    """Repeat a computation, and say in which operation its first NaN or infinity appeared."""
    inputs = [
        *((f"the parameter {path!r}", tensor) for path, tensor in state["params"].items()),
        *((f"the buffer {path!r}", tensor) for path, tensor in state["buffers"].items()),
        *(("the batch", tensor) for tensor in containers.tensors(batches)),
    ]
    with Recorder(module, inputs) as recorder:
        found = compute()
    loss = found.loss_output.value
    place = recorder.origin([*([] if torch.isfinite(loss) else [loss]), *found.grads.values()])
    return found, place or NOWHERE


def _before(events: Iterable[Event]) -> Iterator[Event]:
    """Yield events and what caused them, each once."""
    seen, waiting = set[int](), list(events)
    while waiting:
        event = waiting.pop()
        if event.number not in seen:
            seen.add(event.number)
            yield event
            waiting += event.causes


def _first_infinity(events: Iterable[Event]) -> Event | None:
    found = [one for one in _before(events) if one.text and not one.causes]
    return min(found, key=_number, default=None)


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))


def _number(event: Event) -> int:
    return event.number


def _key(tensor: Tensor) -> int:
    return memory_of(tensor) if _has_values(tensor) else 0


def _has_values(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_meta


def _not_finite(tensor: Tensor) -> str:
    """Return ``"nan"`` or ``"inf"`` for a tensor with such values, ``""`` for any other."""
    is_number = tensor.is_floating_point() or tensor.is_complex()
    if not is_number or not _has_values(tensor) or not tensor.numel():
        return ""
    values = tensor.float() if tensor.itemsize == 1 else tensor  # float8 has few operations
    if bool(torch.isfinite(values).all()):
        return ""
    return "nan" if bool(torch.isnan(values).any()) else "inf"


def _name(func: Any) -> str:
    name: str = func.name() if callable(getattr(func, "name", None)) else str(func)
    return name.removeprefix("aten::").partition(".")[0]
