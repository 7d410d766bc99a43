"""Find tensors that share some of their memory, exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

# (device, first byte, end, index of the tensor): the range of bytes that a tensor spans.
_Span = tuple[str, int, int, int]
_MOST_RUNS = 1_000_000


def overlapping(tensors: Sequence[Tensor]) -> tuple[int, int] | None:
    """Return the indices of two tensors that share some byte, the first one first.

    Slices that share no byte do not overlap, even interleaved ones; an expanded tensor does not
    overlap itself. The answer is exact, except for views that interleave irregularly in more than
    a million contiguous pieces: these are assumed to overlap.

    Args:
        tensors: strided ones with memory of their own and at least one element.

    Example:
        >>> w = torch.zeros(2, 3)
        >>> overlapping([w[:, :2], torch.zeros(3), w[1]]), overlapping([w[:, 0], w[:, 1:]])
        ((0, 2), None)
    """
    spans = []
    for index, tensor in enumerate(tensors):
        start, kind = tensor.data_ptr(), "cpu" if tensor.is_cpu else tensor.device.type
        spans.append((kind, start, start + _reach(tensor), index))
    pairs = (_overlapping_of(cluster, tensors) for cluster in _clusters(spans))
    return next((pair for pair in pairs if pair is not None), None)


def counting(tensor: Tensor) -> tuple[tuple[int, int], ...]:
    """Return (size, stride) of each dimension, with stride 0 for size 1, where it is unused."""
    shape = zip(tensor.shape, tensor.stride(), strict=True)
    return tuple((size, step if size > 1 else 0) for size, step in shape)


def _reach(tensor: Tensor) -> int:
    """Return the number of bytes from the first element to the end of the last."""
    if tensor.is_contiguous():
        return tensor.nbytes
    return (1 + sum((size - 1) * step for size, step in counting(tensor))) * tensor.itemsize


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


def _overlapping_of(cluster: list[_Span], tensors: Sequence[Tensor]) -> tuple[int, int] | None:
    pieces = [(start, *_runs(tensors[index]), index) for _, start, _, index in cluster]
    period = math.gcd(*(step for _, _, outer, _ in pieces for _, step in outer))
    if period and _overlapping(_residues(pieces, period)) is None:
        return None
    if sum(math.prod(size for size, _ in outer) for _, _, outer, _ in pieces) <= _MOST_RUNS:
        pair = _overlapping_exactly(pieces)
    else:
        pair = _overlapping((start, stop, index) for _, start, stop, index in cluster)
    return pair and (min(pair), max(pair))


_Piece = tuple[int, int, list[tuple[int, int]], int]


def _runs(tensor: Tensor) -> tuple[int, list[tuple[int, int]]]:
    """Return the length of a contiguous run of bytes, and (count, step) of the runs."""
    size = tensor.itemsize
    run = size
    outer: list[tuple[int, int]] = []
    for step, count in sorted((step * size, count) for count, step in counting(tensor) if step):
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
