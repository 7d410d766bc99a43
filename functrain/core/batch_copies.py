"""Copies of batches, on the device of a state.

Models write into their input, or pop keys from it, which would change the caller's batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.tree import containers
from functrain.tree.objects import is_array, is_registered

CopyTensor = Callable[[Tensor, torch.device | None], Tensor]


def copied_tensor(tensor: Tensor, device: torch.device | None) -> Tensor:
    """Return a copy on ``device``; host copies from pinned memory do not block."""
    if device is None or tensor.device == device:
        return tensor.clone()
    return tensor.to(device, non_blocking=tensor.is_pinned())


def copied(batch: Any, device: torch.device | None, copy_tensor: CopyTensor = copied_tensor) -> Any:
    """Return a copy of a batch whose tensors are on ``device``.

    ``None`` leaves each tensor where it is. Containers, tensors and arrays are new, and objects
    where there are tensors in them; other leaves are kept.

    Raises:
        UnsupportedError: there is an object with tensors in it that cannot be copied.
    """
    try:
        return _copied(batch, device, copy_tensor)
    except RecursionError as error:
        raise containers.not_copied(batch, "an object in it leads back to itself") from error


def _copied(batch: Any, device: torch.device | None, copy_tensor: CopyTensor) -> Any:
    if isinstance(batch, Tensor):
        return copy_tensor(batch, device)
    kind = type(batch)
    if kind is dict:
        return {key: _copied(child, device, copy_tensor) for key, child in batch.items()}
    if kind is tuple or kind is list:
        return kind([_copied(child, device, copy_tensor) for child in batch])
    if kind is str or batch is None:
        return batch
    if is_array(batch):
        return batch.copy()
    if isinstance(batch, PackedSequence):
        parts = {name: _copied(part, device, copy_tensor) for name, part in batch._asdict().items()}
        # The lengths stay on the host, where torch needs them.
        return batch._replace(**{**parts, "batch_sizes": batch.batch_sizes.clone()})
    if containers.is_structure(batch) and not is_registered(batch):
        return _rebuilt(batch, device, copy_tensor)
    has_clone, has_to = (callable(getattr(kind, name, None)) for name in ("clone", "to"))
    is_cloned = has_clone and has_to  # TensorDict, graphs of PyTorch Geometric
    if not is_cloned and not containers.is_container(batch):
        return batch
    # Only the class of an object knows what else in it depends on the device.
    is_moved = has_to and device is not None and _is_elsewhere(batch, device)
    where = None if is_moved else device
    fresh = batch.clone() if is_cloned else _rebuilt(batch, where, copy_tensor)
    moved = fresh.to(device) if is_moved else fresh
    return fresh if moved is None else moved  # a method may move the object in place


def _rebuilt(batch: Any, device: torch.device | None, copy_tensor: CopyTensor) -> Any:
    parts = [_copied(child, device, copy_tensor) for _, child in containers.children(batch)]
    return containers.rebuild(batch, parts)


def _is_elsewhere(batch: Any, device: torch.device) -> bool:
    """Return whether an object is on another device, or nothing can be seen of its tensors."""
    found = list(containers.tensors(batch))
    return not found or any(tensor.device != device for tensor in found)
