"""How a batch is cut into micro-batches."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.core.batch_sizes import (
    all_votes,
    attribute,
    class_to_register,
    declared,
    or_register,
    size,
    why_unknown,
)
from functrain.errors import UnsupportedError
from functrain.tree import containers, objects


@functools.singledispatch
def split(batch: Any, sizes: Sequence[int]) -> list[Any]:
    """Cut a batch along its samples.

    Register a function for a class that is to be cut in another way, or is an object that says
    nothing of how it is cut: ``@functrain.data.split.register(Graphs)``.

    Args:
        batch: containers of tensors, arrays and lists; a TensorDict or tensorclass; a batch of
            PyTorch Geometric; or what a function was registered for. Tensors without dimensions
            and plain values go into each part.
        sizes: of the parts, in order; they add up to the size of the batch.

    Returns:
        As many batches.

    Raises:
        UnsupportedError: the leading size of a part is another than the batch's, or there is a
            packed sequence in it, or an object for which no function is registered.

    Example:
        >>> split({"x": torch.arange(3), "name": ["a", "b", "c"]}, [2, 1])
        [{'x': tensor([0, 1]), 'name': ['a', 'b']}, {'x': tensor([2]), 'name': ['c']}]
    """
    return _parts(batch, sizes)


_BY_PARTS = split.dispatch(object)


def into(batch: Any, parts: int) -> list[Any]:
    """Cut a batch into micro-batches of nearly equal size, of one sample or more each."""
    total = size(batch)
    if total is None:
        raise _not_cut(why_unknown(batch), class_to_register(batch))
    wanted = part_sizes(total, parts)
    if len(wanted) == 1:
        return [batch]
    found = split(batch, wanted)
    if len(found) != len(wanted):
        raise _not_cut(
            f"{len(found)} parts were returned for sizes={wanted}",
            class_to_register(batch),
        )
    return found


def part_sizes(total: int, parts: int) -> list[int]:
    """Return the sizes of nearly equal parts, the larger ones first, of one sample or more each.

    Example:
        >>> part_sizes(7, 3), part_sizes(2, 3)
        ([3, 2, 2], [1, 1])
    """
    base, extra = divmod(total, min(parts, total))
    return [base + (part < extra) for part in range(min(parts, total))]


def _parts(batch: Any, wanted: Sequence[int]) -> list[Any]:
    """Return the parts of a batch, or of a part of it."""
    if type(batch) is not Tensor and split.dispatch(type(batch)) is not _BY_PARTS:
        return split(batch, wanted)
    if isinstance(batch, Tensor) or objects.is_array(batch):
        return _slices(batch, wanted) if batch.ndim else [batch] * len(wanted)
    if isinstance(batch, PackedSequence):
        raise UnsupportedError(
            "a PackedSequence cannot be cut along its samples. Give the step several batches of "
            "the loader, functrain.MicroBatches([...]), or batches of padded sequences and their "
            "lengths, and pack them in the loss."
        )
    if _is_list_of_samples(batch, sum(wanted)):
        return _slices(batch, wanted)
    if type(batch) in (tuple, list, dict) or not containers.is_container(batch):
        return _filled(batch, wanted)
    return _of_object(batch, wanted)


def _of_object(batch: Any, wanted: Sequence[int]) -> list[Any]:
    if isinstance(attribute(batch, "batch_size"), torch.Size):  # a TensorDict or tensorclass
        return _slices(batch, wanted)
    if _has_graphs(batch):
        return _of_graphs(batch, wanted)
    known = containers.is_structure(batch) and not objects.is_registered(batch)
    if not known or declared(batch) is not None:
        kind = type(batch)
        raise _not_cut(f"nothing says how a {kind.__qualname__} is cut", kind)
    return _filled(batch, wanted)


def _filled(batch: Any, wanted: Sequence[int]) -> list[Any]:
    """Containers like ``batch`` with the parts of its children; a leaf is in each."""
    if not containers.is_container(batch):
        return [batch] * len(wanted)
    cut = [_parts(child, wanted) for _, child in containers.children(batch)]
    return [
        containers.rebuild(batch, [child[index] for child in cut]) for index in range(len(wanted))
    ]


def _slices(batch: Any, wanted: Sequence[int]) -> list[Any]:
    if isinstance(batch, Tensor) and (batch.is_nested or batch.layout is not torch.strided):
        kind = "nested" if batch.is_nested else str(batch.layout).removeprefix("torch.")
        raise _not_cut(f"there is a {kind} tensor in it")
    if len(batch) != sum(wanted):
        raise _not_cut(f"a part of it has {len(batch)} samples, not {sum(wanted)}")
    bounds = itertools.pairwise([0, *itertools.accumulate(wanted)])
    return [batch[start:stop] for start, stop in bounds]


def _not_cut(reason: str, kind: type | None = None) -> UnsupportedError:
    return UnsupportedError(
        f"this batch cannot be cut into micro-batches: {reason}. Give the step the micro-batches, "
        "functrain.MicroBatches([...]), as fit does"
        f"{or_register('how it is cut', 'split', kind)}."
    )


def _is_list_of_samples(batch: Any, total: int) -> bool:
    """Whether a list in a batch is one of samples rather than one of fields."""
    if type(batch) not in (list, tuple) or len(batch) != total:
        return False
    return {n for _, n in all_votes(batch)} != {total}


def _has_graphs(batch: Any) -> bool:
    """Whether this is a batch of PyTorch Geometric."""
    methods = ("to_data_list", "from_data_list")
    return all(callable(getattr(type(batch), name, None)) for name in methods)


def _of_graphs(batch: Any, wanted: Sequence[int]) -> list[Any]:
    # The class of a batch is made for its graphs; the one to make a batch with is its base.
    bases: list[Any] = [base for base in type(batch).__mro__ if "from_data_list" in vars(base)]
    return [bases[0].from_data_list(part) for part in _slices(batch.to_data_list(), wanted)]
