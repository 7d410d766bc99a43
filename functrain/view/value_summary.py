"""Range, mean and a small histogram of tensors, from a sample: cheap enough for a glance."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import torch
from torch import Tensor, nn

from functrain.tree.elements import as_integers, is_opaque
from functrain.tree.torch_internals import is_wrapped
from functrain.view.blocks import Markup, element

_SAMPLED = 4096
_BINS = 24
# Tensors of up to so many elements are searched for NaN and infinity in full: at most 1 ms.
_SEARCHED = 1 << 22
# The size of a histogram, in pixels: that of a word.
_WIDTH, _HEIGHT = 72, 15
# A bin that is not empty is at least this high, so that it is visible.
_LEAST = 0.8
_SUMMED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@attrs.frozen
class ValueSummary:
    """The values of one tensor in a few numbers.

    Attributes:
        counts: histogram of the finite values in the sample; empty if they are all the same.
        low: the least of them, ``None`` if none is finite.
        high: the greatest.
        mean: their mean.
        std: their standard deviation.
        nan: number of NaNs.
        infinite: number of infinities.
        looked_at: size of the sample.
        searched: whether ``nan`` and ``infinite`` count all values rather than the sample.
    """

    counts: tuple[int, ...]
    low: float | None
    high: float | None
    mean: float
    std: float
    nan: int
    infinite: int
    looked_at: int
    searched: bool


def value_summaries(tensors: Iterable[Tensor]) -> dict[int, ValueSummary]:
    """Summarize the values of each tensor that has readable ones, by ``id`` of the tensor.

    A sample has at most 4096 values, drawn with a generator of its own. The samples of all tensors
    of a device are fetched together, so that the host waits once.

    Example:
        >>> w = torch.tensor([0.0, 1.0, 1.0, float("nan")])
        >>> found = value_summaries([w])[id(w)]
        >>> found.low, found.high, found.counts[0], found.counts[-1], found.nan
        (0.0, 1.0, 1, 2, 1)
    """
    unique = {id(tensor): tensor.detach() for tensor in tensors if _readable(tensor)}
    values = _fetched({key: _sample(tensor) for key, tensor in unique.items()})
    searched = {key: t for key, t in unique.items() if _is_searched(t)}
    totals = _fetched({key: tensor.sum().reshape(1) for key, tensor in searched.items()})
    return {key: _summary(values[key], tensor, totals.get(key)) for key, tensor in unique.items()}


def histogram(values: ValueSummary, size: int) -> Markup:
    """Draw a histogram with a line at zero; the pointer shows the numbers."""
    assert values.low is not None, "a histogram needs finite values"
    assert values.high is not None, "a histogram needs finite values"
    across = _WIDTH / len(values.counts)
    most = max(values.counts)
    heights = [max(_LEAST, count / most * (_HEIGHT - 1)) if count else 0 for count in values.counts]
    bars = "".join(f"V{_HEIGHT - height:.3g}h{across:.3g}" for height in heights)
    shapes = [
        element("path", d=f"M0 {_HEIGHT}{bars}V{_HEIGHT}z", fill="currentColor", opacity=0.55)
    ]
    if values.low < 0 < values.high:
        share = -(values.low / 2) / (values.high / 2 - values.low / 2)  # halves do not overflow
        line = f"M{share * _WIDTH:.3g} 0V{_HEIGHT}"
        shapes.append(element("path", d=line, stroke="currentColor", stroke_width=0.7))
    return element(
        "svg",
        element("title", in_words(values, size)),
        *shapes,
        width=_WIDTH,
        height=_HEIGHT,
        style="vertical-align:middle",
    )


def in_words(values: ValueSummary, size: int) -> str:
    """Return the numbers of a histogram as text.

    Example:
        >>> w = torch.arange(5.0)
        >>> in_words(value_summaries([w])[id(w)], 5)
        '0 to 4, mean 2, std 1.41'
    """
    few = "" if values.looked_at == size else f" ({values.looked_at:,} of {size:,} values)"
    return (
        f"{values.low:.3g} to {values.high:.3g}, mean {values.mean:.3g}, std {values.std:.3g}{few}"
    )


def _readable(tensor: Tensor) -> bool:
    """Return whether it is an ordinary tensor with memory and numbers."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_meta
        and not tensor.is_quantized
        and not is_opaque(tensor.dtype)
        and not is_wrapped(tensor)
        and tensor.ndim > 0
        and tensor.numel() > 0
    )


def _sample(tensor: Tensor) -> Tensor:
    """Return some of the values, as a flat tensor of the same device and dtype."""
    # Evenly spaced indices would all fall into one column if the width divides their distance.
    resolved = tensor.resolve_conj().resolve_neg()
    if resolved.numel() <= _SAMPLED:
        return resolved.reshape(-1)
    drawn = torch.Generator().manual_seed(0)
    indices = torch.randint(resolved.numel(), (_SAMPLED,), generator=drawn)
    where = torch.unravel_index(indices.to(resolved.device), resolved.shape)
    return as_integers(resolved)[where].view(resolved.dtype)


def _fetched(tensors: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return flat tensors as float64 on the host, by one transfer for each device and dtype."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for key, tensor in tensors.items():
        kinds.setdefault((tensor.device, tensor.dtype), []).append(key)
    found: dict[int, Tensor] = {}
    for (_, dtype), keys in kinds.items():
        together = torch.cat([as_integers(tensors[key]) for key in keys]).cpu().view(dtype)
        sizes = [len(tensors[key]) for key in keys]
        found.update(zip(keys, map(_real, torch.split(together, sizes)), strict=True))
    return found


def _real(values: Tensor) -> Tensor:
    if values.is_complex():
        wide = values.to(torch.complex128)
        return torch.where(wide.isnan(), torch.nan, wide.abs())
    return values.to(torch.float64)


def _is_searched(tensor: Tensor) -> bool:
    return _SAMPLED < tensor.numel() <= _SEARCHED and tensor.dtype in _SUMMED


def _summary(values: Tensor, tensor: Tensor, total: Tensor | None) -> ValueSummary:
    finite = values[values.isfinite()]
    nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
    if total is not None:  # a finite sum has only finite terms
        clean = bool(total.isfinite())
        nan = 0 if clean else int(tensor.isnan().sum())
        infinite = 0 if clean else int(tensor.isinf().sum())
    whole = len(values) == tensor.numel() or total is not None or not tensor.is_floating_point()
    rest = (nan, infinite, len(values), whole)
    if not len(finite):
        return ValueSummary((), None, None, torch.nan, torch.nan, *rest)
    low, high = float(finite.min()), float(finite.max())
    # Sums and ranges of values between -1 and 1 do not overflow.
    scale = max(abs(low), abs(high)) or 1.0
    unit = finite / scale
    std, mean = float(unit.std(correction=0)) * scale, float(unit.mean()) * scale
    counts = torch.histc(unit, _BINS).tolist() if low < high else []
    return ValueSummary(tuple(map(int, counts)), low, high, mean, std, *rest)
