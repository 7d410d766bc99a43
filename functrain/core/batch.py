"""Batches, and their number of samples: as the class says, or as the tensors agree.

A batch is any nesting of containers (see ``tree/containers.py``) with tensors and anything else
(strings, ``None``) in it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.tree import containers
from functrain.tree.objects import is_array

Batch = Any
Path = tuple[Any, ...]
Sizes = list[tuple[Path, int | None]]

PLAIN = (bool, int, float, complex, str, bytes, type(None))


@functools.singledispatch
def size(batch: Any) -> int | None:
    """Return the number of samples in a batch, or ``None`` where it is not evident.

    It is the weight of a batch in a mean over several, unless the loss returns one. Register a
    function for a class whose batches do not tell it: ``@functrain.data.size.register(Graphs)``.

    Args:
        batch: any nesting of containers and objects.

    Returns:
        The result of a function registered for the class; or its attribute ``num_graphs`` or
        ``batch_size``; or the leading size of all tensors and arrays with dimensions, if they
        agree (a list as long as that is a list of samples: what is in it need not agree); or,
        without any, the length of its lists of strings or numbers. A batch of plain values is one
        sample. ``None`` where sizes disagree, or an object with tensors does not say its size.

    Example:
        >>> size({"text": ["a", "b"], "x": torch.zeros(2, 5)}), size(["a", "b", "c"])
        (2, 3)
        >>> size({"nodes": torch.zeros(7, 5), "edges": torch.zeros(2, 9)}) is None
        True
    """
    found = {n for _, n in sizes(batch)}
    return found.pop() if len(found) == 1 else None


_UNREGISTERED = size.dispatch(object)


def count(batch: Any) -> int:
    """Return the samples that the counters of a state count a batch as.

    That is the size of its first part that has one, which costs less to find than :func:`size` and
    also is there where sizes disagree. It is 0 only where there are no samples in any part, and 1
    for what has no size at all.
    """
    for _, n in sizes_of_parts(batch):
        if n:
            return n
    if (known := size(batch)) is not None:
        return known
    length = 1
    for tensor in containers.tensors(batch):
        if tensor.ndim and (length := len(tensor)):
            break
    return length


def known_size(batch: Any, purpose: Literal["mean", "duration"] = "mean") -> int:
    """Return the size of a batch for a number that depends on it; refuse one of unknown size."""
    found = size(batch)
    if found is None:
        from functrain.diagnosis.batches import unknown_size

        raise unknown_size(batch, purpose)
    return found


def sizes(batch: Any) -> Sizes:
    """Return the sizes that must agree, by path; ``None`` of an object that does not tell."""
    found = list(sizes_of_parts(batch)) or list(_lengths_of_columns(batch))
    if type(batch) is list and _are_samples(batch):
        found.append(((), len(batch)))
    return found or _size_of_plain(batch)


def sizes_of_parts(value: Any, path: Path = ()) -> Iterator[tuple[Path, int | None]]:
    """Yield the sizes of tensors, arrays and objects by path, those within lists last."""
    own = _own_size(value)
    if own is not None:
        yield path, own
    elif type(value) in (dict, list, tuple):
        yield from _sizes_of_children(value, path)
    elif not isinstance(value, (Tensor, *PLAIN)) and containers.is_container(value):
        said, is_structure = declared(value), containers.is_structure(value)
        if said is None and is_structure:
            yield from _sizes_of_children(value, path)
            return
        yield path, said
        if is_structure:  # its tensors may contradict an attribute that was not brought up to date
            inside = {n for _, n in _sizes_of_children(value, path)}
            yield from [(path, n) for n in inside if len(inside) == 1]


def _sizes_of_children(value: Any, path: Path) -> Iterator[tuple[Path, int | None]]:
    lists, found = [], set()
    if _is_column(value):
        return
    for key, child in containers.children(value):
        if type(child) in (list, tuple):
            lists.append(((*path, key), child))
            continue
        for one in sizes_of_parts(child, (*path, key)):
            found.add(one[1])
            yield one
    for place, each in lists:
        if found != {len(each)}:  # otherwise they are samples, which need not agree
            yield from sizes_of_parts(each, place)


def _own_size(value: Any) -> int | None:
    if isinstance(value, Tensor):
        return value.size(0) if value.ndim else None
    if is_array(value):
        return len(value) if value.ndim else None
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    return None if size.dispatch(type(value)) is _UNREGISTERED else size(value)


def declared(value: Any) -> int | None:
    """Return the size that an object of another package says it has.

    ``num_graphs`` is that of PyTorch Geometric, ``batch_size`` that of TensorDict, samplers of
    graphs and many others.
    """
    for name in ("num_graphs", "batch_size"):
        found = attribute(value, name)
        if isinstance(found, torch.Size) and found:
            return found[0]
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    return None


def attribute(value: Any, name: str) -> Any:
    """Return an attribute of an object, or ``None``: some dicts' attributes are their items."""
    try:
        return getattr(value, name)
    except (AttributeError, KeyError, ValueError):
        return None


def _is_column(value: Any) -> bool:
    """Return whether this is one list of plain values, one a sample (texts, names, file paths)."""
    is_list = type(value) in (list, tuple) and bool(value)
    return is_list and all(isinstance(each, (str, bytes, int, float)) for each in value)


def _lengths_of_columns(value: Any, path: Path = ()) -> Iterator[tuple[Path, int]]:
    if _is_column(value):
        yield path, len(value)
    elif not isinstance(value, PLAIN) and containers.is_structure(value):
        for key, part in containers.children(value):
            yield from _lengths_of_columns(part, (*path, key))


def _are_samples(batch: list[Any]) -> bool:
    """Return whether a list may be samples that nobody collated: containers of one class."""
    kinds = {type(each) for each in batch}
    return len(kinds) == 1 and list not in kinds and containers.is_container(batch[0])


def _size_of_plain(batch: Any) -> Sizes:
    """Nothing has no samples, plain values are one; of what cannot be seen nothing is known."""
    if containers.is_structure(batch):
        parts = [part for _, part in containers.children(batch)]
        return [((), min(len(parts), 1))] if all(map(_size_of_plain, parts)) else []
    is_plain = isinstance(batch, (Tensor, *PLAIN)) or type(batch).__module__ == "numpy"
    return [((), 1)] if is_plain else []
