"""Find tensors that are views of the same memory, and refuse those that only overlap."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator

import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import DTYPES
from functrain.errors import UnsupportedError
from functrain.tree import Path, path_string

Named = list[tuple[Path, Tensor]]
# (device, first byte, end, index of the tensor): the range of bytes that a tensor spans.
_Span = tuple[str, int, int, int]
_MOST_RUNS = 1_000_000
_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


def aliases(tensors: Named) -> list[int | None]:
    """Return for every tensor the index of the first alias, or ``None`` if it is the first.

    Tensors are aliases if they are the same view: address, dtype, shape, strides (of sizes above
    1), conjugation and negation. Sharing memory in any other way is an error, because a checkpoint
    could not restore it: a matrix and its transpose, a tensor and its slice, overlapping slices,
    the same bytes with another dtype. Slices that share no byte are allowed, even interleaved
    ones, as are empty tensors and expanded ones.

    The answer is exact, except for views that interleave irregularly in more than a million
    contiguous pieces: these are assumed to overlap.

    Raises:
        UnsupportedError: the values of a tensor are not in dense memory, or two tensors
            overlap without being the same view; the message names both.

    Example:
        >>> w = torch.zeros(2, 3)
        >>> aliases([(("w",), w), (("same",), w[:]), (("copy",), w.clone())])
        [None, 0, None]
    """
    begins: dict[int, list[int]] = {}
    found: list[int | None] = []
    spans: list[_Span] = []
    for index, (path, tensor) in enumerate(tensors):
        check(path, tensor)
        if tensor.numel() == 0:
            found.append(None)
            continue
        start = tensor.data_ptr()
        # Few tensors share an address, so the full comparison is rare.
        others = begins.setdefault(start, [])
        shown = _shown(tensor) if others else None
        first = next((each for each in others if _shown(tensors[each][1]) == shown), None)
        found.append(first)
        if first is None:
            others.append(index)
            kind = "cpu" if tensor.is_cpu else tensor.device.type
            spans.append((kind, start, start + _reach(tensor), index))
    for cluster in _clusters(spans):
        _refuse_overlap(cluster, tensors)
    return found


def _shown(tensor: Tensor) -> Hashable:
    view = tensor.device, tensor.dtype, tensor.is_conj(), tensor.is_neg()
    return (*view, _counting(tensor))


def _reach(tensor: Tensor) -> int:
    """Return the number of bytes from the first element to the end of the last."""
    if tensor.is_contiguous():
        return tensor.nbytes
    return (1 + sum((size - 1) * step for size, step in _counting(tensor))) * tensor.itemsize


def check(path: Path, tensor: Tensor) -> None:
    """Raise if the values of a tensor could not be restored exactly."""
    cls = type(tensor)
    reason = None
    if cls is not Tensor and cls is not torch.nn.Parameter:
        reason = f"a {cls.__name__}, a subclass of Tensor"
    elif _wrapped(tensor):
        reason = "a tensor inside of vmap or grad"
    elif tensor.dtype not in DTYPES or tensor.is_nested:
        reason = f"a quantized or nested tensor ({tensor.dtype})"
    elif tensor.layout != torch.strided:
        reason = f"a tensor of layout {tensor.layout}"
    elif tensor.is_meta:
        reason = "a meta tensor, which has no values"
    if reason is not None:
        raise UnsupportedError(
            f"{path_string(path)} is {reason}; a checkpoint holds tensors with values in plain "
            "memory. Convert it before saving"
        )


def _counting(tensor: Tensor) -> tuple[tuple[int, int], ...]:
    """Return (size, stride) of each dimension, with stride 0 for size 1, where it is unused."""
    shape = zip(tensor.shape, tensor.stride(), strict=True)
    return tuple((size, step if size > 1 else 0) for size, step in shape)


def _clusters(spans: list[_Span]) -> Iterator[list[_Span]]:
    """Yield groups of two or more tensors whose spans overlap in a chain."""
    spans.sort()
    device, end, begin = "", 0, 0
    for place, (kind, start, stop, _) in enumerate(spans):
        if kind != device or start >= end:
            if place - begin > 1:
                yield spans[begin:place]
            begin, device, end = place, kind, stop
        elif stop > end:
            end = stop
    if len(spans) - begin > 1:
        yield spans[begin:]


def _refuse_overlap(cluster: list[_Span], tensors: Named) -> None:
    pieces = [(start, *_runs(tensors[index][1]), index) for _, start, _, index in cluster]
    period = math.gcd(*(step for _, _, outer, _ in pieces for _, step in outer))
    if period and _overlapping(_residues(pieces, period)) is None:
        return
    if sum(math.prod(size for size, _ in outer) for _, _, outer, _ in pieces) <= _MOST_RUNS:
        pair = _overlapping_exactly(pieces)
    else:
        pair = _overlapping((start, stop, index) for _, start, stop, index in cluster)
    if pair is not None:
        one, two = (path_string(tensors[index][0]) for index in sorted(pair))
        raise UnsupportedError(
            f"{one} and {two} share some of their memory without being the same view of it, which "
            "a checkpoint could not restore. Clone one of them, or use the same tensor at both "
            "places"
        )


_Piece = tuple[int, int, list[tuple[int, int]], int]


def _runs(tensor: Tensor) -> tuple[int, list[tuple[int, int]]]:
    """Return the length of a contiguous run of bytes, and (count, step) of the runs."""
    size = tensor.itemsize
    run = size
    outer: list[tuple[int, int]] = []
    for step, count in sorted((step * size, count) for count, step in _counting(tensor) if step):
        if step <= run and not outer:
            run += (count - 1) * step
        else:
            outer.append((count, step))
    return run, outer


def _residues(pieces: list[_Piece], period: int) -> Iterator[tuple[int, int, int]]:
    """Yield the runs modulo ``period``; runs that are disjoint there are disjoint everywhere."""
    for start, run, _, index in pieces:
        begin = start % period
        yield begin, begin + run, index
        if begin + run > period:
            # Wrapping once finds every overlap, even of a run longer than a period.
            yield 0, begin + run - period, index


def _overlapping(intervals: Iterable[tuple[int, int, int]]) -> tuple[int, int] | None:
    """Return the indices of two (start, end, index) that overlap, if any do."""
    end, owner = -1, -1
    for start, stop, index in sorted(intervals):
        if start < end and index != owner:
            return owner, index
        if stop > end:
            end, owner = stop, index
    return None


def _overlapping_exactly(pieces: list[_Piece]) -> tuple[int, int] | None:
    """Return the indices of two tensors with overlapping runs, if there are any."""
    base = min(start for start, _, _, _ in pieces)
    begins, ends, owners = [], [], []
    for start, run, outer, index in pieces:
        offsets = torch.tensor([start - base], device="cpu")
        for count, step in outer:
            offsets = (offsets[:, None] + torch.arange(count, device="cpu") * step).reshape(-1)
        begins.append(offsets)
        ends.append(offsets + run)
        owners.append(torch.full_like(offsets, index))
    starts, order = torch.cat(begins).sort()
    stops, owner = torch.cat(ends)[order], torch.cat(owners)[order]
    furthest, by = stops.cummax(0)
    before = owner[by[:-1]]
    meets = ((starts[1:] < furthest[:-1]) & (before != owner[1:])).nonzero()
    if not len(meets):
        return None
    place = int(meets[0])
    return int(before[place]), int(owner[place + 1])
