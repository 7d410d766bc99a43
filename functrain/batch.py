"""Batches as trees: copied to the state's device, counted, cut into micro-batches.

A batch is any nesting of mappings, lists, tuples, dataclasses and attrs classes with tensors and
anything else (strings, ``None``) in it. The user's batch is never handed to the model itself:
models that write into their input, or pop keys from it, would change what the caller holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain import containers
from functrain.errors import MicroBatchError, PackedBatchError

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


def copied(batch: Batch, device: torch.device) -> Batch:
    """A copy of a batch whose tensors are on ``device``; leaves that are no tensors are kept.

    Args:
        batch: any nesting of containers.
        device: where the state is.

    Returns:
        New containers and new tensors; host copies from pinned memory do not block.
    """
    if isinstance(batch, Tensor):
        if batch.device == device:
            return batch.clone()
        return batch.to(device, non_blocking=batch.is_pinned())
    kind = type(batch)
    if kind is tuple or kind is list:
        return kind([copied(child, device) for child in batch])
    if isinstance(batch, PackedSequence):
        return _packed_copy(batch, device)
    if containers.is_container(batch):
        parts = [copied(child, device) for _, child in containers.children(batch)]
        return containers.rebuild(batch, parts)
    return batch


def _packed_copy(batch: PackedSequence, device: torch.device) -> PackedSequence:
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


def size(batch: Batch) -> int:
    """Samples in a batch: the leading size of its first tensor that has one.

    Args:
        batch: any nesting of containers.

    Returns:
        The size of dimension 0 of the first tensor with dimensions, or the number of sequences of
        the first packed one; without either, the length of the first list of strings or numbers;
        otherwise 1.

    Example:
        >>> size({"text": ["a", "b"], "x": torch.zeros(2, 5)}), size(["a", "b", "c"])
        (2, 3)
    """
    length = _first_length(batch)
    if length is not None:
        return length
    columns = _columns(batch)
    return len(columns[0]) if columns else _no_samples(batch)


def _first_length(batch: Batch) -> int | None:
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else None
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    if not containers.is_container(batch):
        return None
    plain = type(batch) in (tuple, list)
    children = batch if plain else [child for _, child in containers.children(batch)]
    for child in children:
        length = _first_length(child)
        if length is not None:
            return length
    return None


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
            batches (tuples, lists, dicts and their like); or one batch, which is cut along
            dimension 0.
        accumulate: how many micro-batches make a step.

    Returns:
        At most ``accumulate`` parts of nearly equal size; fewer when there are fewer samples.

    Raises:
        MicroBatchError: the list is longer than ``accumulate``.
        PackedBatchError: there is a packed sequence in the batch that is to be cut.

    Example:
        >>> [len(part) for part in split(torch.zeros(7, 2), 3).parts]
        [3, 2, 2]
    """
    if isinstance(batch, MicroBatches):
        given = batch.batches
    elif accumulate > 1 and _is_list_of_batches(batch):
        given = batch
        if len(given) > accumulate:
            raise MicroBatchError(len(given), accumulate)
    elif samples := size(batch):
        return Split(_cut(batch, min(accumulate, samples)), samples, 1, 0)
    else:
        return Split([], 0, 1, 1)
    sizes = [size(part) for part in given]
    parts = [part for part, samples in zip(given, sizes, strict=True) if samples]
    return Split(parts, sum(sizes), len(given), len(given) - len(parts))


def _is_list_of_batches(batch: Batch) -> bool:
    # A loader's own batch is often the list [inputs, targets]; its elements are tensors.
    return isinstance(batch, list) and all(map(containers.is_container, batch))


def _cut(batch: Batch, parts: int) -> list[Batch]:
    if parts < 2:
        return [batch]
    total = size(batch)
    base, extra = divmod(total, parts)
    bounds = [part * base + min(part, extra) for part in range(parts + 1)]
    return [_between(batch, start, stop, total) for start, stop in itertools.pairwise(bounds)]


def _between(batch: Batch, start: int, stop: int, total: int) -> Batch:
    if isinstance(batch, Tensor):
        return batch[start:stop] if batch.ndim and len(batch) == total else batch
    if _is_column(batch) and len(batch) == total:
        return batch[start:stop]
    if isinstance(batch, PackedSequence):
        raise PackedBatchError
    if containers.is_container(batch):
        cut = [_between(child, start, stop, total) for _, child in containers.children(batch)]
        return containers.rebuild(batch, cut)
    return batch


def _is_column(batch: Batch) -> bool:
    """Whether this is one list of plain values, one a sample (texts, names, file paths)."""
    return (
        isinstance(batch, (list, tuple))
        and bool(batch)
        and all(isinstance(value, (str, bytes, int, float)) for value in batch)
    )


def _columns(batch: Batch) -> list[Sequence[Any]]:
    if _is_column(batch):
        return [batch]
    if not containers.is_container(batch):
        return []
    return [column for _, child in containers.children(batch) for column in _columns(child)]


def _no_samples(batch: Batch) -> int:
    return 0 if containers.is_container(batch) and not containers.children(batch) else 1
