"""How the values of tensors are spread, from few of them: what a glance at a state costs."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import torch
from torch import Tensor, nn

from functrain.tree.elements import as_integers, is_opaque

_SAMPLED = 4096
_BINS = 24
# Up to so many elements every one is looked at for NaN and infinity: 1 ms at the most.
_SEARCHED = 1 << 22
_SUMMED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@attrs.frozen
class Spread:
    """What the values of one tensor are like.

    Attributes:
        counts: of the finite values looked at, in equal parts of their range; empty where they are
            all the same.
        low: the least of them, ``None`` where none is finite.
        high: the greatest.
        mean: their mean.
        std: their standard deviation.
        nan: how many are NaN.
        infinite: how many are infinite.
        looked_at: of how many values this is told.
        searched: whether ``nan`` and ``infinite`` are of all values all the same.
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


def spreads(tensors: Iterable[Tensor]) -> dict[int, Spread]:
    """How the values of each tensor are spread.

    At most 4096 values of a tensor are taken, by places drawn from a generator of its own; those
    of all tensors of a device are fetched together, so that it is waited for once.

    Args:
        tensors: of any kind; those without readable values are passed over.

    Returns:
        Spreads by ``id`` of the tensor.

    Example:
        >>> w = torch.tensor([0.0, 1.0, 1.0, float("nan")])
        >>> found = spreads([w])[id(w)]
        >>> found.low, found.high, found.counts[0], found.counts[-1], found.nan
        (0.0, 1.0, 1, 2, 1)
    """
    unique = {id(tensor): tensor.detach() for tensor in tensors if _readable(tensor)}
    values = _fetched({key: _picked(tensor) for key, tensor in unique.items()})
    searched = {key: t for key, t in unique.items() if _is_searched(t)}
    sums = _fetched({key: tensor.sum().reshape(1) for key, tensor in searched.items()})
    return {key: _spread(values[key], tensor, sums.get(key)) for key, tensor in unique.items()}


def _readable(tensor: Tensor) -> bool:
    """Whether it is an ordinary tensor with memory, of numbers."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_meta
        and not tensor.is_quantized
        and not is_opaque(tensor.dtype)
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and tensor.ndim > 0
        and tensor.numel() > 0
    )


def _picked(tensor: Tensor) -> Tensor:
    """Some of the values, as a flat tensor of the same device and dtype."""
    # Evenly spaced places would all be of one column where the width divides the distance.
    resolved = tensor.resolve_conj().resolve_neg()
    if resolved.numel() <= _SAMPLED:
        return resolved.reshape(-1)
    drawn = torch.Generator().manual_seed(0)
    places = torch.randint(resolved.numel(), (_SAMPLED,), generator=drawn)
    where = torch.unravel_index(places.to(resolved.device), resolved.shape)
    return as_integers(resolved)[where].view(resolved.dtype)


def _fetched(tensors: dict[int, Tensor]) -> dict[int, Tensor]:
    """Flat tensors as float64 on the host, in one transfer for each device and dtype."""
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


def _spread(values: Tensor, tensor: Tensor, total: Tensor | None) -> Spread:
    finite = values[values.isfinite()]
    nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
    if total is not None:  # one element that is not finite leaves no finite sum
        clean = bool(total.isfinite())
        nan = 0 if clean else int(tensor.isnan().sum())
        infinite = 0 if clean else int(tensor.isinf().sum())
    whole = len(values) == tensor.numel() or total is not None or not tensor.is_floating_point()
    rest = (nan, infinite, len(values), whole)
    if not len(finite):
        return Spread((), None, None, torch.nan, torch.nan, *rest)
    low, high = float(finite.min()), float(finite.max())
    # Of values between -1 and 1 no sum and no range is infinite.
    scale = max(abs(low), abs(high)) or 1.0
    unit = finite / scale
    std, mean = float(unit.std(correction=0)) * scale, float(unit.mean()) * scale
    counts = torch.histc(unit, _BINS).tolist() if low < high else []
    return Spread(tuple(map(int, counts)), low, high, mean, std, *rest)
