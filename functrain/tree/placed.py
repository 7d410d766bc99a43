"""Leaves that are spread over processes: DTensors, each with a local tensor on this rank.

A DTensor that the whole world shares is cut or replicated over a device mesh of all ranks. One on
a smaller mesh is owned by that mesh; the local tensor of every other rank is empty. Nothing here
imports ``torch.distributed``: where it is not loaded, no leaf is a DTensor.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

# gloo refuses some types of one and two bytes. These have the same width, and nothing is computed.
_SENT_AS = {1: torch.uint8, 2: torch.float16}


def is_placed(leaf: Any) -> bool:
    """Return whether a leaf is a DTensor.

    Example:
        >>> is_placed(torch.ones(2))
        False
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(leaf, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor on this rank, which shares its memory.

    Args:
        tensor: a DTensor; any other tensor is returned as it is.

    Example:
        >>> weight = torch.ones(2)
        >>> local(weight) is weight
        True
    """
    if not is_placed(tensor):
        return tensor
    with torch.no_grad():  # the tensor itself, instead of a view for autograd
        part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def placement(tensor: Tensor) -> str:
    """Describe where the elements of a DTensor are, for people; empty if every rank has them all.

    Example:
        >>> placement(torch.ones(2))
        ''
    """
    if not is_placed(tensor):
        return ""
    given: Any = tensor
    ranks = _ranks(given)
    if len(ranks) > 1 and any(each.is_shard() for each in given.placements):
        return f"cut over {len(ranks)} ranks"
    return "" if len(ranks) == _world_size() else f"on rank {', '.join(map(str, ranks))}"


def whole(tensor: Tensor) -> Tensor:
    """Return all elements of a tensor, on every rank; all ranks of the world call this together.

    Args:
        tensor: a DTensor; any other tensor is returned as it is.

    Returns:
        A plain tensor, which shares memory with the local one where that has all elements.

    Example:
        >>> weight = torch.ones(2)
        >>> whole(weight) is weight
        True
    """
    if not is_placed(tensor):
        return tensor
    with torch.no_grad():
        return _sent_to_all(tensor, _of_mesh(tensor))


def _of_mesh(tensor: Any) -> Tensor:
    """Return all elements on the ranks of the tensor's mesh, and something empty on others."""
    part = tensor.to_local()
    sent_as = _SENT_AS.get(tensor.dtype.itemsize)
    if sent_as is not None and not any(each.is_partial() for each in tensor.placements):
        tensor = tensor.from_local(
            part.view(sent_as),
            tensor.device_mesh,
            tensor.placements,
            run_check=False,
            shape=tensor.shape,
            stride=tensor.stride(),
        )
    elements: Tensor = tensor.full_tensor()
    return elements.view(part.dtype)


def _sent_to_all(tensor: Any, elements: Tensor) -> Tensor:
    """Send the elements from the ranks of a mesh to the others, if it has not every rank."""
    ranks = _ranks(tensor)
    if len(ranks) == _world_size():
        return elements
    if tensor.device_mesh.get_coordinate() is None:
        elements = torch.empty(tensor.shape, dtype=tensor.dtype, device=elements.device)
    elements = elements.contiguous()
    torch.distributed.broadcast(elements.reshape(-1).view(torch.uint8), ranks[0])
    return elements


def _ranks(tensor: Any) -> list[int]:
    """Return the ranks of the mesh; those of the whole mesh if it is one dimension of another."""
    ranks: list[int] = tensor.device_mesh._get_root_mesh().mesh.flatten().tolist()
    return ranks


def _world_size() -> int:
    return torch.distributed.get_world_size()
