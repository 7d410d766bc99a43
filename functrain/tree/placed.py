"""Leaves that are spread over processes: DTensors, each with a local tensor on this rank.

A DTensor that the whole world shares is cut or replicated over a device mesh of all ranks. One on
a smaller mesh is owned by that mesh; the local tensor of every other rank is empty. Nothing here
imports ``torch.distributed``: where it is not loaded, no leaf is a DTensor.

All ranks put such a leaf together. If one of them tried alone, it would wait until the timeout, or
take messages of a step for answers. So that is refused where it is known that the others do not.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from functrain.errors import AloneError

# gloo refuses some types of one and two bytes. These have the same width, and nothing is computed.
_SENT_AS = {1: torch.uint8, 2: torch.float16}

# Why this thread works alone; a thread that it starts does not.
_alone: ContextVar[str | None] = ContextVar("functrain_alone", default=None)


@contextlib.contextmanager
def alone(reason: str) -> Iterator[None]:
    """Refuse operations that need all ranks within a block.

    The reason ends the message of the error: why the others are not here, and what to do.

    Example:
        >>> with alone("only rank 0 reads the file."):
        ...     require_all_ranks("the mean of all ranks")
        Traceback (most recent call last):
        functrain.errors.RankMismatchError: the mean of all ranks needs every rank, but only...
    """
    token = _alone.set(reason)
    try:
        yield
    finally:
        _alone.reset(token)


def require_all_ranks(what: str) -> None:
    """Refuse an operation that other ranks do not make now."""
    reason = _alone.get()
    if reason is not None:
        raise AloneError(f"{what} needs every rank, but {reason}")


def is_placed(leaf: Any) -> bool:
    """Return whether a leaf is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(leaf, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor on this rank, which shares its memory."""
    if not is_placed(tensor):
        return tensor
    with torch.no_grad():  # the tensor itself, instead of a view for autograd
        part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def placement(tensor: Tensor) -> str:
    """Describe where the elements of a DTensor are; empty if every rank has them all."""
    if not is_placed(tensor):
        return ""
    given: Any = tensor
    ranks = _ranks(given)
    if len(ranks) > 1 and any(each.is_shard() for each in given.placements):
        return f"cut over {len(ranks)} ranks"
    return "" if len(ranks) == _world_size() else f"on rank {', '.join(map(str, ranks))}"


def whole(tensor: Tensor) -> Tensor:
    """Return all elements of a tensor, on every rank; all ranks of the world call this together.

    Raises:
        AloneError: this rank works alone, as in a listener that others do not call.

    Example:
        >>> weight = torch.ones(2)
        >>> whole(weight) is weight
        True
    """
    if not is_placed(tensor):
        return tensor
    require_all_ranks("a whole tensor of a placed state")
    with torch.no_grad():
        return _laid_out_as(tensor, _sent_to_all(tensor, _of_mesh(tensor)))


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


def _laid_out_as(tensor: Tensor, elements: Tensor) -> Tensor:
    """Return the elements with the stride of the whole tensor: kernels may depend on it."""
    if elements.stride() == tensor.stride():
        return elements
    return elements.new_empty_strided(tensor.shape, tensor.stride()).copy_(elements)


def _ranks(tensor: Any) -> list[int]:
    """Return the ranks of the mesh; those of the whole mesh if it is one dimension of another."""
    ranks: list[int] = tensor.device_mesh._get_root_mesh().mesh.flatten().tolist()
    return ranks


def _world_size() -> int:
    return torch.distributed.get_world_size()
