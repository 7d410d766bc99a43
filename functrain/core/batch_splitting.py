"""How a batch is cut into micro-batches, and which batches make up one step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.core.batch import (
    Batch,
    attribute,
    count,
    declared,
    known_size,
    size,
    sizes_of_parts,
)
from functrain.errors import ConfigurationError, UnsupportedError
from functrain.tree import containers
from functrain.tree.objects import is_array, is_registered


def _several(batches: Any) -> list[Batch]:
    """Return several batches as a list; one batch would be cut into its rows or columns."""
    one = isinstance(batches, Tensor | Mapping | str | MicroBatches)
    listed = [] if one else list(batches)
    are_columns = type(batches) is tuple and all(isinstance(each, Tensor) for each in listed)
    if one or (listed and are_columns) or any(isinstance(each, MicroBatches) for each in listed):
        from functrain.diagnosis.batches import not_several

        raise not_several(batches)
    return listed


@attrs.frozen(eq=False)
class MicroBatches:
    """Several loader batches that make up one step.

    ``train_step`` averages their gradients by weight, so that k micro-batches do what one big
    batch would. ``fit`` builds these from the loader for a program with ``accumulate=k``.

    Attributes:
        batches: the loader batches, of equal or unequal size.

    Raises:
        UnsupportedError: it is one batch.

    Example:
        >>> import torch
        >>> MicroBatches([torch.zeros(2, 3), torch.zeros(1, 3)])
        MicroBatches(batches=[tensor([[0., 0., 0.],
                [0., 0., 0.]]), tensor([[0., 0., 0.]])])
    """

    batches: list[Batch] = attrs.field(converter=_several)


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


def split_step(batch: Batch, accumulate: int) -> Split:
    """Cut a batch into at most ``accumulate`` micro-batches, without those that have no samples.

    A batch is :class:`MicroBatches`; or, with ``accumulate`` above 1, a list of up to that many
    batches (tuples, lists, dicts and their like); or one batch, which :func:`into` cuts.

    Example:
        >>> import torch
        >>> [len(part) for part in split_step(torch.zeros(7, 2), 3).parts]
        [3, 2, 2]
    """
    if isinstance(batch, MicroBatches):
        given = batch.batches
    # A loader's own batch is often the list [inputs, targets]; its elements are tensors.
    elif accumulate > 1 and isinstance(batch, list) and all(map(containers.is_container, batch)):
        given = batch
        if len(given) > accumulate:
            raise ConfigurationError(
                f"{len(given)} micro-batches were given to a step of a program with "
                f"accumulate={accumulate}. Give at most that many, or wrap them to say that they "
                "are one step: functrain.MicroBatches([...])."
            )
    elif samples := count(batch):
        return Split([batch] if accumulate < 2 else into(batch, accumulate), samples, 1, 0)
    else:
        return Split([], 0, 1, 1)
    counts = [count(part) for part in given]
    parts = [part for part, samples in zip(given, counts, strict=True) if samples]
    return Split(parts, sum(counts), len(given), len(given) - len(parts))


def require_sizes(batch: Batch) -> None:
    """Refuse a batch of unknown size where a duration is counted in samples."""
    for each in batch.batches if isinstance(batch, MicroBatches) else [batch]:
        known_size(each, "duration")


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
    if isinstance(batch, PackedSequence):
        raise _not_cut("there is a PackedSequence in it; give padded ones, and pack in the loss")
    if _has_rows(batch, sum(sizes)):
        return _slices(batch, sizes)
    if isinstance(batch, Tensor) or is_array(batch) or not containers.is_container(batch):
        return [batch] * len(sizes)
    if callable(getattr(type(batch), "to_data_list", None)):  # of PyTorch Geometric
        # The class of a batch is made for its graphs; the one to make a batch with is its base.
        bases: list[Any] = [one for one in type(batch).__mro__ if "from_data_list" in vars(one)]
        return [bases[0].from_data_list(part) for part in _slices(batch.to_data_list(), sizes)]
    if type(batch) not in (dict, list, tuple):
        known = containers.is_structure(batch) and not is_registered(batch)
        if not known or declared(batch) is not None:
            raise _not_cut(f"nothing says how a {type(batch).__qualname__} is cut", batch)
    cut = [split(child, sizes) for _, child in containers.children(batch)]
    return [containers.rebuild(batch, list(parts)) for parts in zip(*cut, strict=True)]


def into(batch: Any, parts: int) -> list[Any]:
    """Cut a batch into micro-batches of nearly equal size, of one sample or more each."""
    total = size(batch)
    if total is None:
        raise _not_cut(None, batch)
    wanted = part_sizes(total, parts)
    if len(wanted) == 1:
        return [batch]
    found = split(batch, wanted)
    if len(found) != len(wanted):
        raise _not_cut(f"{len(found)} parts were returned for sizes={wanted}", batch)
    return found


def part_sizes(total: int, parts: int) -> list[int]:
    """Return the sizes of nearly equal parts, the larger ones first, of one sample or more each.

    Example:
        >>> part_sizes(7, 3), part_sizes(2, 3)
        ([3, 2, 2], [1, 1])
    """
    base, extra = divmod(total, min(parts, total))
    return [base + (part < extra) for part in range(min(parts, total))]


def _has_rows(batch: Any, total: int) -> bool:
    """Return whether a batch is cut by slices: a tensor, a TensorDict, or a list of samples."""
    if isinstance(batch, Tensor) or is_array(batch):
        return bool(batch.ndim)
    if isinstance(attribute(batch, "batch_size"), torch.Size):  # of a TensorDict or tensorclass
        return True
    if type(batch) not in (list, tuple) or len(batch) != total:
        return False
    return {n for _, n in sizes_of_parts(batch)} != {total}  # otherwise it is a list of fields


def _slices(batch: Any, wanted: Sequence[int]) -> list[Any]:
    if isinstance(batch, Tensor) and (batch.is_nested or batch.layout is not torch.strided):
        kind = "nested" if batch.is_nested else str(batch.layout).removeprefix("torch.")
        raise _not_cut(f"there is a {kind} tensor in it")
    if len(batch) != sum(wanted):
        raise _not_cut(f"a part of it has {len(batch)} samples, not {sum(wanted)}")
    bounds = itertools.pairwise([0, *itertools.accumulate(wanted)])
    return [batch[start:stop] for start, stop in bounds]


def _not_cut(reason: str | None, batch: Any = None) -> UnsupportedError:
    from functrain.diagnosis.batches import not_cut

    return not_cut(reason, batch)
