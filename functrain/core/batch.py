"""Batches as trees: copied to the state's device, counted, cut into micro-batches.

A batch is any nesting of containers (see ``tree/containers.py``) with tensors and anything else
(strings, ``None``) in it. The user's batch is never handed to the model itself: models that write
into their input, or pop keys from it, would change what the caller holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.core import splitting
from functrain.core.sizes import count
from functrain.core.unknown_sizes import DURATION, known_size
from functrain.errors import ConfigurationError
from functrain.tree import containers, objects

Batch = Any


@attrs.frozen(eq=False)
class MicroBatches:
    """Several loader batches that make up one step.

    ``train_step`` averages their gradients by weight, so that k micro-batches do what one big
    batch would. ``fit`` builds these from the loader for a program with ``accumulate=k``.

    Attributes:
        batches: the loader batches, of equal or unequal size.

    Example:
        >>> MicroBatches([torch.zeros(2, 3), torch.zeros(1, 3)])
        MicroBatches(batches=[tensor([[0., 0., 0.],
                [0., 0., 0.]]), tensor([[0., 0., 0.]])])
    """

    batches: list[Batch] = attrs.field(converter=list)


def copied(batch: Batch, device: torch.device | None) -> Batch:
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


def moved(batch: Batch, device: torch.device) -> Batch:
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


class Split(NamedTuple):
    """The micro-batches of one step.

    Attributes:
        parts: micro-batches that have samples.
        samples: samples in all of them.
        consumed: loader batches they came from.
        empty: of these, the ones without samples.
    """

    parts: list[Batch]
    samples: int
    consumed: int
    empty: int


def split(batch: Batch, accumulate: int) -> Split:
    """Cut what a step was given into micro-batches; those without samples are left out.

    Args:
        batch: :class:`MicroBatches`; or, with ``accumulate`` above 1, a list of up to that many
            batches (tuples, lists, dicts and their like); or one batch, which is cut along its
            samples (see :func:`functrain.data.split`).
        accumulate: how many micro-batches make a step.

    Returns:
        At most ``accumulate`` parts of nearly equal size; fewer when there are fewer samples.

    Raises:
        ConfigurationError: the list is longer than ``accumulate``.
        UnsupportedError: the batch cannot be cut: its size is not evident, or it has a packed
            sequence or an object of an unregistered class in it.

    Example:
        >>> [len(part) for part in split(torch.zeros(7, 2), 3).parts]
        [3, 2, 2]
    """
    if isinstance(batch, MicroBatches):
        given = batch.batches
    elif accumulate > 1 and _is_list_of_batches(batch):
        given = batch
        if len(given) > accumulate:
            raise ConfigurationError(
                f"{len(given)} micro-batches were given to a step of a program with "
                f"accumulate={accumulate}. Give at most that many, or wrap them to say that they "
                "are one step: functrain.MicroBatches([...])."
            )
    elif samples := count(batch):
        parts = [batch] if accumulate < 2 else splitting.into(batch, accumulate)
        return Split(parts, samples, 1, 0)
    else:
        return Split([], 0, 1, 1)
    counts = [count(part) for part in given]
    parts = [part for part, samples in zip(given, counts, strict=True) if samples]
    return Split(parts, sum(counts), len(given), len(given) - len(parts))


def require_sizes(batch: Batch) -> None:
    """Refuse what a step was given where a duration is in samples and their number is a guess.

    Args:
        batch: see :func:`split`.

    Raises:
        BatchSizeError: the size of a batch is not evident.
    """
    for each in batch.batches if isinstance(batch, MicroBatches) else [batch]:
        known_size(each, DURATION)


def _is_list_of_batches(batch: Batch) -> bool:
    # A loader's own batch is often the list [inputs, targets]; its elements are tensors.
    return isinstance(batch, list) and all(map(containers.is_container, batch))
