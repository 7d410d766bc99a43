"""Trees of tensors as flat lists, and back, with all that a graph takes for granted of them.

This runs at every step, so the containers that nearly all trees are made of come first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import BatchFormError

# What a graph takes for granted of a tree: kinds and keys of containers, plain values, and of
# tensors dtype, shape, strides and device.
Form = tuple[Any, ...]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def flatten(node: Any) -> list[Tensor]:
    """The tensors of a tree, depth first; of what is no container or tensor, nothing."""
    found: list[Tensor] = []
    _collect(node, found)
    return found


def _collect(node: Any, found: list[Tensor]) -> None:
    if type(node) is dict:
        for child in node.values():
            if type(child) is Tensor:
                found.append(child)
            elif child is not None:
                _collect(child, found)
    elif isinstance(node, Tensor):
        found.append(node)
    elif tree.is_node(node):
        for _, child in tree.children(node):
            _collect(child, found)


def with_tensors(node: Any, given: Iterator[Tensor]) -> Any:
    """A tree like ``node`` with other tensors in it.

    Args:
        node: the tree.
        given: as many tensors as it has, in the order of :func:`flatten`.
    """
    if isinstance(node, Tensor):
        return next(given)
    if type(node) is dict:
        return {key: with_tensors(child, given) for key, child in node.items()}
    if tree.is_node(node):
        return tree.rebuild(node, [with_tensors(child, given) for _, child in tree.children(node)])
    return node


def form(node: Any) -> Form:
    """All that a graph captured with a tree has built in: equal ones can share a graph.

    Args:
        node: any nesting of containers, tensors and plain values.

    Raises:
        BatchFormError: there is a value in it of a kind that cannot be compared.
    """
    if isinstance(node, Tensor):
        return (node.dtype, node.shape, node.stride(), node.device)
    kind = type(node)
    if kind is tuple or kind is list:
        return (kind, *map(form, node))
    if isinstance(node, _PLAIN):
        return (kind, repr(node))  # under which NaN is itself, and -0.0 is not 0.0
    if not tree.is_node(node):
        raise BatchFormError(
            f"there is a {kind.__name__} in the batch, where a compiled step takes containers of "
            "tensors, numbers and strings",
            None,
        )
    return (kind, *((key, form(child)) for key, child in tree.children(node)))


def writable(leaves: list[Tensor]) -> bool:
    """Whether each of several tensors can be written to without touching another of them.

    Two that begin at the same place cannot; nor can one that does not fill its memory, whose
    strides a copy would not have.
    """
    places = [leaf.data_ptr() for leaf in leaves if leaf.numel()]
    dense = torch.ops.aten.is_non_overlapping_and_dense
    return len(set(places)) == len(places) and all(map(dense, leaves))


def apart(batches: Any, places: frozenset[int]) -> Any:
    """Batches with copies of the tensors whose memory is that of a state.

    Args:
        batches: any tree.
        places: where the storages of the state's tensors begin.
    """
    leaves = flatten(batches)
    theirs = [leaf.untyped_storage().data_ptr() in places for leaf in leaves]
    if not any(theirs):
        return batches
    own = [leaf.clone() if shared else leaf for leaf, shared in zip(leaves, theirs, strict=True)]
    return with_tensors(batches, iter(own))


def alike(tensor: Tensor) -> Tensor:
    """A tensor of the same form with memory of its own and any values."""
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )


def scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a tensor, without waiting for the device."""
    if device.type == "cpu":
        return torch.scalar_tensor(value, dtype=dtype)
    return torch.full((), value, dtype=dtype, device=device)
