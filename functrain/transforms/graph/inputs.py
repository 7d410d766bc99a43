"""Trees of tensors as flat lists, and back; and the form of a tree, which a graph has built in.

This runs at every step, so the most frequent containers come first.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor

from functrain import tree
from functrain.core.batch_lending import copied
from functrain.core.precision import widest
from functrain.errors import CaptureError
from functrain.transforms.torch_internals import is_traceable_wrapper_subclass
from functrain.tree import containers, objects

# Everything a graph has built in of a tree: kinds and keys of containers, plain values, and what
# _BUILT_IN says of tensors.
Form = tuple[Any, ...]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
# Not looked into, and the same only if they are equal or one and the same.
_NAMED = (type, FunctionType, torch.dtype, torch.device, enum.Enum)
_TENSORS = {Tensor}
_DEVICE = operator.attrgetter("device")
_BUILT_IN: tuple[Callable[[Tensor], object], ...] = (
    type,
    operator.attrgetter("layout"),
    operator.attrgetter("dtype"),
    _DEVICE,
    operator.attrgetter("shape"),
    Tensor.stride,
)
_DICTS = (dict, tree.FrozenDict)


def flatten(node: Any) -> list[Tensor]:
    """Return the tensors of a tree, depth first; of what is no container or tensor, nothing."""
    found: list[Tensor] = []
    _collect(node, found)
    return found


def _collect(node: Any, found: list[Tensor]) -> None:
    if type(node) in _DICTS:
        children = node.values()
        if set(map(type, children)) == _TENSORS:  # parameters, moments: no loop in Python
            found.extend(children)
            return
        for child in children:
            if type(child) is Tensor:
                found.append(child)
            elif type(child) not in _PLAIN:
                _collect(child, found)
    elif isinstance(node, Tensor):
        found.append(node)
    elif type(node) in (list, tuple):
        for child in node:
            _collect(child, found)
    elif containers.is_container(node):
        for _, child in containers.children(node):
            _collect(child, found)


def with_tensors(node: Any, given: Iterator[Tensor]) -> Any:
    """Return a tree like ``node`` with other tensors in it.

    The tensors are in the order of :func:`flatten`.
    """
    return builder(node)(given)


def builder(node: Any) -> Callable[[Iterator[Tensor]], Any]:
    """Return :func:`with_tensors` for one tree, prepared once for many calls."""
    if isinstance(node, Tensor):
        return next
    if type(node) in _DICTS:
        keys = tuple(node)
        if all(isinstance(child, Tensor) for child in node.values()):
            # Not strict: that would take one more of those given.
            return lambda given: dict(zip(keys, given, strict=False))
        named = [(key, builder(child)) for key, child in node.items()]
        return lambda given: {key: build(given) for key, build in named}
    if containers.is_container(node):
        parts = [builder(child) for _, child in containers.children(node)]
        return lambda given: containers.rebuild(node, [build(given) for build in parts])
    return lambda given: node


def form(node: Any) -> tuple[Form, list[Tensor]]:
    """Return everything that a graph has built in of a tree, and the tensors in it.

    Trees of equal form share a graph.

    Raises:
        CaptureError: there is an object in the tree that is no container.
    """
    found: list[Tensor] = []
    structure = _structure(node, found)
    return (structure, form_of_tensors(found)), found


def _structure(node: Any, found: list[Tensor]) -> Any:
    kind = tree.kind(node)
    if kind is Tensor:
        found.append(node)
        return kind
    if kind is dict:
        if set(map(type, node.values())) == _TENSORS:
            found.extend(node.values())
            return (Tensor, *node)
        return (kind, *[(key, _structure(child, found)) for key, child in node.items()])
    if kind is tuple or kind is list:
        return (kind, *[_structure(child, found) for child in node])
    if isinstance(node, _PLAIN):
        return (kind, repr(node))  # under which NaN is itself, and -0.0 is not 0.0
    if isinstance(node, Tensor):
        found.append(node)
        return kind
    if isinstance(node, _NAMED):
        return (kind, node)
    if not containers.is_container(node):
        raise _refused(kind)
    constants = containers.constants(node)
    context = () if constants is None else (_constant(constants),)
    children = containers.children(node)
    return (kind, *context, *[(key, _structure(child, found)) for key, child in children])


def form_of_tensors(tensors: list[Tensor]) -> Form:
    """Return what a graph has built in of each tensor."""
    try:
        return tuple(tuple(map(one, tensors)) for one in _BUILT_IN)
    except RuntimeError:  # nested tensors have no shape
        require_dense({"batch": tensors})
        raise


def _refused(kind: type) -> CaptureError:
    return CaptureError(
        f"there is a {kind.__name__} in the batch, where a compiled step takes containers of "
        "tensors, numbers and strings",
        None,
    )


def _constant(value: Any) -> Any:
    """Return the context that torch's pytree keeps with the children, in a form to compare."""
    if isinstance(value, (dict, list, tuple)):
        return (type(value), *[(key, _constant(child)) for key, child in tree.children(value)])
    if isinstance(value, Tensor) or objects.is_array(value):
        raise _refused(type(value))
    return value if isinstance(value, _NAMED) else (type(value), repr(value))


def require_dense(inputs: dict[str, Any]) -> None:
    """Refuse tensors that no graph takes, in parts of a state and in batches."""
    for name, part in inputs.items():
        for leaf in flatten(part):
            if (kind := unlike_dense(leaf)) is None:
                continue
            reason = f"there is a {kind} tensor in the batch"
            if not name.startswith("batch"):
                path = next(path for path, one in tree.items({name: part}) if one is leaf)
                reason = f"state.{tree.path_string(path)} is a {kind} tensor"
            raise CaptureError(f"{reason}; a graph takes dense ones", None)


def unlike_dense(tensor: Tensor) -> str | None:
    """Return the kind of a tensor that is not laid out in memory by sizes and strides."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return "quantized"
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    kind = type(tensor)
    if kind is not Tensor and is_traceable_wrapper_subclass(cast(Any, tensor)):
        return kind.__name__
    return None


def on_device(batches: Any, device: torch.device) -> Any:
    """Return batches as a graph may be given them: on a device, without lazy conjugation."""
    leaves = flatten(batches)
    lazy = any(map(Tensor.is_conj, leaves)) or any(map(Tensor.is_neg, leaves))
    if not lazy and {device}.issuperset(map(_DEVICE, leaves)):
        return batches
    return with_tensors(batches, (_on_device(leaf, device) for leaf in leaves))


def _on_device(leaf: Tensor, device: torch.device) -> Tensor:
    leaf = leaf.resolve_conj().resolve_neg()
    return leaf if leaf.device == device else copied(leaf, device)


def alike(tensor: Tensor) -> Tensor:
    """Return a tensor of the same form with memory of its own and any values."""
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )


def as_tensors(lr: Any, device: torch.device) -> Any:
    """Return a rate, or those of groups, as tensors, without waiting for the device."""
    if isinstance(lr, dict):
        return {name: as_tensors(rate, device) for name, rate in lr.items()}
    if device.type == "cpu":
        return torch.scalar_tensor(lr, dtype=widest(device))
    return torch.full((), lr, dtype=widest(device), device=device)
