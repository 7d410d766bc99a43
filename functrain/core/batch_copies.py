"""Copies of batches on the device of a state.

The user's batch is never handed to the model itself: models that write into their input, or pop
keys from it, would change what the caller holds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.tree import containers, objects


def copied(batch: Any, device: torch.device | None) -> Any:
    """A copy of a batch whose tensors are on ``device``.

    Args:
        batch: any nesting of containers and objects.
        device: where the state is; ``None`` leaves each tensor where it is.

    Returns:
        New containers, tensors and arrays, and new objects where there are tensors in them; other
        leaves are kept. Host copies from pinned memory do not block.

    Raises:
        UnsupportedError: an object with tensors in it cannot be copied.
    """
    if isinstance(batch, Tensor):
        if device is None or batch.device == device:
            return batch.clone()
        return batch.to(device, non_blocking=batch.is_pinned())
    kind = type(batch)
    if kind is dict:
        return {key: copied(child, device) for key, child in batch.items()}
    if kind is tuple or kind is list:
        return kind([copied(child, device) for child in batch])
    if kind is str or batch is None:
        return batch
    if isinstance(batch, PackedSequence):
        return _packed_copy(batch, device)
    if containers.is_structure(batch) and not objects.is_registered(batch):
        parts = [copied(child, device) for _, child in containers.children(batch)]
        return containers.rebuild(batch, parts)
    return _object_copy(batch, device)


def _object_copy(batch: Any, device: torch.device | None) -> Any:
    """A copy of what is no container of Python: on its own device first, then moved by its ``to``.

    Only its class knows what else depends on the device; ``to`` may write to the object or return
    another. A ``clone`` is relied on where the class is known to torch's pytree, as TensorDict is,
    or nothing can be seen of what it holds.
    """
    if objects.is_array(batch):
        return batch.copy()
    if objects.is_registered(batch):
        return _registered_copy(batch, device)
    inside = objects.contents(batch)
    if not inside.tensors:
        return _moved(batch.clone(), device) if objects.moves(batch) else batch
    parts = [leaf for _, leaf in inside.leaves if objects.is_part(leaf)]
    moves = _moves_itself(batch, parts, device)
    leaves = [
        copied(leaf, None if moves else device) if objects.is_part(leaf) else leaf
        for _, leaf in inside.leaves
    ]
    fresh = objects.rebuilt(batch, inside, leaves)
    return _moved(fresh, device) if moves else fresh


def _registered_copy(batch: Any, device: torch.device | None) -> Any:
    parts = [child for _, child in containers.children(batch)]
    moves = _moves_itself(batch, parts, device)
    if objects.moves(batch):
        fresh = batch.clone()
    else:
        fresh = containers.rebuild(batch, [copied(p, None if moves else device) for p in parts])
    return _moved(fresh, device) if moves else fresh


def _moves_itself(batch: Any, parts: list[Any], device: torch.device | None) -> bool:
    """Whether an object has to move, and a method to do so."""
    if device is None or not callable(getattr(type(batch), "to", None)):
        return False
    return any(tensor.device != device for part in parts for tensor in containers.tensors(part))


def _moved(batch: Any, device: torch.device | None) -> Any:
    moved = batch if device is None else batch.to(device)
    return batch if moved is None else moved


def _packed_copy(batch: PackedSequence, device: torch.device | None) -> PackedSequence:
    """A copy whose lengths stay on the host, where torch wants them."""
    parts = {name: copied(part, device) for name, part in batch._asdict().items()}
    return batch._replace(**{**parts, "batch_sizes": batch.batch_sizes.clone()})


def moved(batch: Any, device: torch.device) -> Any:
    """A batch whose tensors are on ``device``: itself where they are, otherwise a copy.

    Args:
        batch: any nesting of containers.
        device: where the state is.
    """
    if isinstance(batch, Tensor):
        own = batch.resolve_conj().resolve_neg()
        return own if own.device == device else copied(own, device)
    kind = type(batch)
    if kind is tuple or kind is list:
        return kind([moved(child, device) for child in batch])
    if containers.is_container(batch):
        parts = [moved(child, device) for _, child in containers.children(batch)]
        return containers.rebuild(batch, parts)
    return batch
