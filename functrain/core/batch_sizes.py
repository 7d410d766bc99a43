"""How many samples a batch has: by what its class says, or where all its tensors agree."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.tree import containers, objects

PLAIN = (bool, int, float, complex, str, bytes, type(None))
Path = tuple[Any, ...]
Vote = tuple[Path, int]


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
        sample. ``None`` where sizes disagree, or nothing can be seen of an object.

    Example:
        >>> size({"text": ["a", "b"], "x": torch.zeros(2, 5)}), size(["a", "b", "c"])
        (2, 3)
        >>> size({"nodes": torch.zeros(7, 5), "edges": torch.zeros(2, 9)}) is None
        True
    """
    kind = type(batch)
    parts = batch.values() if kind is dict else batch if kind is tuple or kind is list else ()
    if parts and all(type(part) is Tensor and part.ndim for part in parts):  # most batches
        sizes = {part.size(0) for part in parts}
        return sizes.pop() if len(sizes) == 1 else None
    return _agreed(votes(batch))


_BY_PARTS = size.dispatch(object)


def count(batch: Any) -> int:
    """Return the samples that the counters of a state count a batch as.

    That is the size of its first part that has one, of those within a list only if there is no
    other (they may be samples); it costs less to find than :func:`size` and also is there where
    sizes disagree. It is 0 only where there are no samples in any part, and 1 for what has no size
    at all.
    """
    length = _first(batch)
    if length:
        return length
    known = size(batch)
    if known is not None:
        return known
    return max((n for _, n in all_votes(batch)), default=1)


def is_column(value: Any) -> bool:
    """Whether this is one list of plain values, one a sample (texts, names, file paths)."""
    plain = (str, bytes, int, float)
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(each, plain) for each in value)
    )


def is_registered(value: Any) -> bool:
    """Whether somebody registered the size of a class."""
    return size.dispatch(type(value)) is not _BY_PARTS


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


def votes(batch: Any) -> list[Vote]:
    """Return the sizes that must agree, by path; not those in a list of one item per sample."""
    alone = isinstance(batch, (Tensor, PackedSequence)) or is_registered(batch)
    if alone or declared(batch) is not None:
        return list(all_votes(batch))
    fields, lists = _parted(batch)
    found = [vote for path, field in fields for vote in all_votes(field, path)]
    total = _agreed(found)
    for path, each in lists:
        inside = list(all_votes(each, path))
        found += inside if total is None or len(each) != total else []
    found = found or [(path, len(each)) for path, each in _columns(batch, ())]
    if _is_list_of_samples(batch):
        found.append(((), len(batch)))
    return found or _without_tensors(batch)


def _parted(batch: Any) -> tuple[list[tuple[Path, Any]], list[tuple[Path, Any]]]:
    """Return the fields of a batch, and the lists and tuples among them."""
    if not containers.is_container(batch):
        return [((), batch)], []
    named = [((key,), child) for key, child in containers.children(batch)]
    sequences = [each for each in named if type(each[1]) in (list, tuple)]
    return [each for each in named if type(each[1]) not in (list, tuple)], sequences


def all_votes(value: Any, path: Path = ()) -> Iterator[Vote]:
    """Return the sizes of all parts of a value."""
    if isinstance(value, Tensor):
        yield from [(path, value.size(0))] if value.ndim else []
    elif objects.is_array(value):
        yield from [(path, len(value))] if value.ndim else []
    elif isinstance(value, PackedSequence):
        yield path, int(value.batch_sizes[0])
    elif is_registered(value):
        found = size(value)
        yield from [] if found is None else [(path, found)]
    elif isinstance(value, PLAIN) or is_column(value) or not containers.is_container(value):
        return
    else:
        parts = containers.children(value)
        inside = [vote for key, part in parts for vote in all_votes(part, (*path, key))]
        said = None if type(value) in (dict, list, tuple) else declared(value)
        if said is None:
            yield from inside
        else:  # an attribute of old may be contradicted by all there is
            yield path, said
            yield from [] if _agreed(inside) in (None, said) else inside


def _columns(value: Any, path: Path) -> list[tuple[Path, Any]]:
    if is_column(value):
        return [(path, value)]
    if isinstance(value, PLAIN) or not containers.is_structure(value):
        return []
    parts = containers.children(value)
    return [found for key, part in parts for found in _columns(part, (*path, key))]


def _is_list_of_samples(batch: Any) -> bool:
    """Whether a list may be samples that nobody collated: tuples, dicts or objects, all alike."""
    if type(batch) is not list or not batch:
        return False
    leaf = (list, Tensor, *PLAIN)
    forms = {_form(each) for each in batch}
    return len(forms) == 1 and not isinstance(batch[0], leaf) and not objects.is_array(batch[0])


def _form(sample: Any) -> Any:
    keys: Any = len(sample) if isinstance(sample, tuple) else None
    return type(sample), tuple(sample) if isinstance(sample, dict) else keys


def _without_tensors(batch: Any) -> list[Vote]:
    """Nothing has no samples, plain values are one; of what cannot be seen nothing is known."""
    if containers.is_structure(batch):
        parts = [part for _, part in containers.children(batch)]
        if not parts:
            return [((), 0)]
        return [((), 1)] if all(map(_without_tensors, parts)) else []
    numbers = isinstance(batch, Tensor) or type(batch).__module__ == "numpy"
    return [((), 1)] if numbers or isinstance(batch, PLAIN) else []


def _agreed(votes: list[Vote]) -> int | None:
    sizes = {n for _, n in votes}
    return sizes.pop() if len(sizes) == 1 else None


def _first(batch: Any) -> int | None:
    """Return the size of the first part that has one."""
    if isinstance(batch, Tensor):
        return batch.size(0) if batch.ndim else None
    kind = type(batch)
    if kind is tuple or kind is list:
        children = batch
    elif kind is dict:
        children = batch.values()
    elif isinstance(batch, PLAIN):
        return None
    else:
        return next((n for _, n in all_votes(batch)), None)
    lists = []
    for child in children:
        if type(child) is list:  # of samples perhaps, each of another size
            lists.append(child)
            continue
        length = _first(child)
        if length is not None:
            return length
    return next((n for n in map(_first, lists) if n is not None), None)


def why_unknown(batch: Any) -> str:
    """Say why the size of a batch is not evident."""
    found = [(_place(path), n) for path, n in votes(batch)]
    if not found:
        kind = class_to_register(batch)
        return f"no tensor is found in {'it' if kind is None else kind.__qualname__}"
    shown = {n: place for place, n in reversed(found)}
    listed = ", ".join(f"{place} has {n}" for n, place in list(shown.items())[::-1][:4])
    return f"leading sizes differ: {listed}"


def class_to_register(batch: Any) -> type | None:
    """Return the class of the first object in a batch for which a size could be registered."""
    if isinstance(batch, (*PLAIN, Tensor, PackedSequence)) or objects.is_array(batch):
        return None
    if type(batch) in (dict, list, tuple):
        found = (class_to_register(child) for _, child in containers.children(batch))
        return next((kind for kind in found if kind is not None), None)
    return type(batch)


def or_register(what: str, function: str, kind: type | None) -> str:
    """Propose to register a function for a class, if it is one that can be registered."""
    if kind is None:
        return ""
    return f", or register {what}: @functrain.data.{function}.register({kind.__qualname__})"


def _place(path: Path) -> str:
    keys = [key if isinstance(key, str) and key[:1] in ".[" else f"[{key!r}]" for key in path]
    return f"batch{''.join(keys)}"
