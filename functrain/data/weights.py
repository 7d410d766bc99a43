"""Weights of the sources of a mixture, constant or changing over time, and draws by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from functrain.core.rng import derive
from functrain.data.permutation import hashed
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import Validator, number, optional

BLOCK = 1 << 15  # draws under one key
Vector = Sequence[float] | Mapping[str, float]


# Returns the weights of the batches from start on, before stop: a float64 tensor with a row for
# each batch, or with one row if they are all the same.
WeightsAt = Callable[[int, int], Tensor]


@explained
@attrs.frozen
class Temperature:
    """Weights between proportional and uniform: ``p_i ~ min(n_i, cap) ** (1 / temperature)``.

    Temperature 1 is proportional to size, a high one nearly uniform. Formula from Raffel et al.,
    "Exploring the Limits of Transfer Learning" (T5, 2020), section 3.5.2, as in jiant.

    Args:
        temperature: above 0.
        cap: upper limit on the size of a source.

    Raises:
        ConfigurationError: a number is not positive.

    Example:
        >>> Temperature(2.0).of([100, 400]).tolist()
        [10.0, 20.0]
    """

    temperature: float = attrs.field(validator=number(above=0))
    cap: int | None = attrs.field(default=None, validator=optional(number(above=0, finite=False)))

    def of(self, sizes: Sequence[int]) -> Tensor:
        """Return the weights of sources by size: a float64 tensor of shape ``[sources]``."""
        capped = [size if self.cap is None else min(size, self.cap) for size in sizes]
        return torch.tensor(capped, dtype=torch.float64) ** (1 / self.temperature)


@explained
@attrs.frozen
class Interpolated:
    """Weights that change linearly between given batches and are constant outside of them.

    Args:
        points: weights by batch number, each a list in the order of the sources or a dict by
            name. They are normalized to sum to 1 before interpolation.

    Raises:
        ConfigurationError: there are no points, or one is before batch 0.

    Example:
        >>> from functrain.data import Mixture
        >>> annealed = Interpolated({0: [1.0, 0.0], 1000: [0.5, 0.5]})
        >>> mixture = Mixture([[1], [2]], weights=annealed)
        >>> mixture.probabilities(500)
        {'0': 0.75, '1': 0.25}
    """

    points: Mapping[int, Vector] = attrs.field(
        validator=Validator(
            lambda points: bool(points) and min(points) >= 0, "weights by batch number from 0 on"
        )
    )


# Every form of weights that a mixture accepts.
AnyWeights: TypeAlias = (
    Literal["uniform", "proportional"]
    | Vector
    | Tensor
    | Temperature
    | Interpolated
    | Callable[[int], Vector]
)


def weights_of(given: Any, names: Sequence[str], sizes: Sequence[int | None]) -> WeightsAt:
    """Convert any form of weights."""
    if isinstance(given, str) and given == "uniform":
        given = [1.0] * len(names)
    elif isinstance(given, str) and given == "proportional":
        given = Temperature(1.0)
    if isinstance(given, Temperature):
        given = given.of(_known(sizes, names, given))
    elif isinstance(given, Interpolated):
        batches = sorted(given.points)
        rows = _checked([_ordered(given.points[batch], names) for batch in batches], names)
        points = torch.tensor(batches, dtype=torch.float64), rows / rows.sum(1, True)
        return partial(_interpolate, *points)
    elif callable(given):
        return partial(_compute, given, names)
    return partial(_repeat, _checked([_ordered(given, names)], names))


def _repeat(row: Tensor, start: int, stop: int) -> Tensor:
    return row


def _interpolate(batches: Tensor, rows: Tensor, start: int, stop: int) -> Tensor:
    """Return weights between the rows of given batches, which ascend."""
    if len(batches) == 1:
        return rows
    first, last = float(batches[0]), float(batches[-1])
    asked = torch.arange(start, stop, dtype=torch.float64).clamp_(first, last)
    right = torch.searchsorted(batches, asked).clamp_(min=1, max=len(batches) - 1)
    left = right - 1
    part = (asked - batches[left]) / (batches[right] - batches[left])
    return torch.lerp(rows[left], rows[right], part[:, None])


def _compute(
    function: Callable[[int], Vector], names: Sequence[str], start: int, stop: int
) -> Tensor:
    return _checked([_ordered(function(batch), names) for batch in range(start, stop)], names)


def _ordered(given: Any, names: Sequence[str]) -> Sequence[float]:
    """Return a vector as a list in the order of the sources."""
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ConfigurationError(
                f"weights must name each source once: the sources are {list(names)}, the weights "
                f"name {list(given)}"
            )
        return [given[name] for name in names]
    found = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise ConfigurationError(
            'weights: expected "uniform", "proportional", a list, a dict by name, Temperature, '
            f"Interpolated or a function of the batch's number, got {given!r}"
        )
    if len(found) != len(names):
        raise ConfigurationError(f"there must be one weight for each of {list(names)}, got {found}")
    return found


def _checked(rows: Sequence[Sequence[float]], names: Sequence[str]) -> Tensor:
    """Validate vectors and return them as the rows of a float64 tensor."""
    found = torch.tensor(rows, dtype=torch.float64)
    bad = ~(found.isfinite().all(1) & (found >= 0).all(1) & (found.sum(1) > 0))
    if bad.any():
        raise ConfigurationError(
            "weights: expected finite numbers, not negative and not all zero, got "
            f"{found[bad][0].tolist()} for {list(names)}"
        )
    return found


def _known(sizes: Sequence[int | None], names: Sequence[str], given: Temperature) -> list[int]:
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        unknown = [name for name, size in zip(names, sizes, strict=True) if size is None]
        raise ConfigurationError(
            f"weights by size ({given}) need the length of each source, unknown for {unknown}: "
            "give a list of weights"
        )
    return known


@attrs.frozen(eq=False)
class WeightedDraws:
    """The source of each of the draws 0, 1, 2, ...: a pure function of (seed, index of the draw).

    Random numbers are hashes of the index, so any range of draws can be computed directly. Counting
    how often each source was drawn before takes 15 to 50 ns a draw.

    Example:
        >>> choices = WeightedDraws(weights_of([3.0, 1.0], "ab", []), sources=2, seed=0)
        >>> choices.between(0, 10).tolist(), choices.counts(10)
        ([1, 0, 0, 1, 1, 0, 0, 0, 0, 1], [6, 4])
        >>> choices.counts(1_000_000)
        [749630, 250370]
    """

    weights: WeightsAt
    sources: int
    seed: int
    per_batch: int = 1
    # Counts before each block, computed on demand: a cache of a pure function.
    _before: list[Tensor] = attrs.field(init=False, repr=False)

    @_before.default
    def _nothing_yet(self) -> list[Tensor]:
        return [torch.zeros(self.sources, dtype=torch.int64)]

    def between(self, start: int, stop: int) -> Tensor:
        """Return the sources of the draws ``start`` to ``stop - 1``: int64 ``[stop - start]``."""
        parts = [
            self._in_block(block, max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK))
            for block in range(start // BLOCK, -(-stop // BLOCK))
        ]
        return torch.cat([torch.empty(0, dtype=torch.int64), *parts])

    def counts(self, draw: int) -> list[int]:
        """Return how often each source was drawn before ``draw``."""
        block, offset = divmod(draw, BLOCK)
        while len(self._before) <= block:
            full = self._count(len(self._before) - 1, BLOCK)
            self._before.append(self._before[-1] + full)
        counts: list[int] = (self._before[block] + self._count(block, offset)).tolist()
        return counts

    def _count(self, block: int, offset: int) -> Tensor:
        return torch.bincount(self._in_block(block, 0, offset), minlength=self.sources)

    def _in_block(self, block: int, start: int, stop: int) -> Tensor:
        if start >= stop:
            return torch.empty(0, dtype=torch.int64)
        # Hash with two keys: with one, two blocks could be permutations of each other.
        numbers = torch.arange(start, stop)
        for key in range(2):
            numbers = hashed(numbers, derive(self.seed, "mixture", block, key) & 0xFFFFFFFF)
        first, last = block * BLOCK + start, block * BLOCK + stop
        batches = (first // self.per_batch, -(-last // self.per_batch))
        limits = _limits(self.weights(*batches))
        if len(limits) == 1:
            return torch.searchsorted(limits[0], numbers, right=True)
        if self.per_batch > 1:
            limits = limits[torch.arange(first, last) // self.per_batch - batches[0]]
        return (limits[:, :-1] <= numbers[:, None]).sum(1)


def _limits(weights: Tensor) -> Tensor:
    """Return where the share of each source in ``range(2**32)`` ends, as int64."""
    sums = weights.cumsum(1)
    return (sums / sums[:, -1:] * 2.0**32).to(torch.int64)
