"""Batches of which each holds samples of several datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.rng import derive
from functrain.data.batches import Batches
from functrain.data.choices import Choices
from functrain.data.columns import Columns, columns_of
from functrain.data.mixture import named
from functrain.data.permutation import Permutation
from functrain.data.weights import weights_of
from functrain.errors import ConfigurationError, EmptyDatasetError


def mixed_samples(
    datasets: Mapping[str, Any] | Sequence[Any],
    batch_size: int,
    *,
    weights: Any = "proportional",
    seed: int = 0,
    shuffle: bool = True,
    length: int | None = None,
    with_sources: bool = False,
    **options: Any,
) -> Batches:
    """Batches whose samples are drawn from several datasets by weights.

    Which dataset gives the n-th sample is a pure function of the seed and n; each dataset goes
    through its own epochs, as the sources of a :class:`Mixture` do. A sample that comes twice in
    an epoch of the mixture is augmented by two random streams.

    Args:
        datasets: by name, or a list of them; each is what :class:`Batches` takes. Their samples
            must be such as can be put into one batch.
        batch_size: samples in a batch.
        weights: as for :class:`Mixture`; sizes are in samples, times in batches.
        seed: root seed of the draws, of the datasets' order and of augmentation.
        shuffle: whether each dataset is shuffled anew in each of its epochs.
        length: batches in an epoch; by default enough for all samples.
        with_sources: give ``(sources, batch)``; ``sources`` is an int64 tensor of shape
            ``[batch]`` that numbers the datasets.
        options: further ones of :class:`Batches`.

    Returns:
        Batches; any of them can be had at once.

    Raises:
        ConfigurationError: weights and datasets do not fit.

    Example:
        >>> data = mixed_samples([torch.arange(4), torch.arange(100, 104)], 4, weights=[0.5, 0.5])
        >>> list(data)
        [tensor([103,   3,   1, 101]), tensor([100,   0,   2,   0])]
    """
    joined = _joined(named(datasets), with_sources)
    sizes = [len(dataset) for dataset in joined.datasets]
    choices = Choices(weights_of(weights, joined.names, sizes), len(sizes), seed, batch_size)
    batches = -(-sum(sizes) // batch_size) if length is None else length
    sampler = MixedOrder(choices, joined.bounds, batches * batch_size, shuffle)
    return Batches(joined, batch_size, sampler=sampler, seed=seed, **options)


@attrs.frozen(eq=False)
class Joined:
    """Datasets one after another, and again and again: sample ``n`` is that at ``n % total``.

    The turn ``n // total`` that a sample is numbered with tells apart its random streams.

    Attributes:
        names: of the datasets.
        datasets: they themselves, as columns where they are such.
        with_sources: whether a sample says where it is from.
        bounds: where each begins, and the total; int64 of shape ``[datasets + 1]``.
    """

    names: list[str]
    datasets: list[Any]
    with_sources: bool
    bounds: Tensor

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getitem__(self, index: int) -> Any:
        """One sample."""
        place = index % len(self)
        source = int(torch.searchsorted(self.bounds, place, right=True)) - 1
        sample = self.datasets[source][place - int(self.bounds[source])]
        return (source, sample) if self.with_sources else sample


@attrs.frozen(eq=False)
class JoinedColumns(Joined):
    """Columns one after another, without being copied together."""

    def batch_at(self, indices: Tensor) -> Any:
        """Several samples as one batch."""
        places = indices % len(self)
        sources = torch.searchsorted(self.bounds, places, right=True) - 1
        order = sources.argsort(stable=True)
        gathered = [
            columns.gathered(places[sources == source] - self.bounds[source])
            for source, columns in enumerate(self.datasets)
        ]
        back = order.argsort()
        together = [torch.cat(parts) for parts in zip(*gathered, strict=True)]
        batch = self.datasets[0].filled([t.index_select(0, back.to(t.device)) for t in together])
        return (sources, batch) if self.with_sources else batch


def _joined(datasets: Mapping[str, Any], with_sources: bool) -> Joined:
    parts: list[Any] = []
    for name, dataset in datasets.items():
        columns = columns_of(dataset)
        parts.append(dataset if columns is None else columns)
        if not hasattr(parts[-1], "__len__") or not hasattr(parts[-1], "__getitem__"):
            raise ConfigurationError(
                f"dataset {name!r} has no length or no samples by index: mix such data by "
                "batches, with functrain.data.Mixture"
            )
        if not len(parts[-1]):
            raise EmptyDatasetError(f"dataset {name!r} has no samples")
    bounds = torch.tensor([0, *accumulate(len(part) for part in parts)])
    if not all(isinstance(part, Columns) for part in parts):
        return Joined(list(datasets), parts, with_sources, bounds)
    forms = {name: _form(part) for name, part in zip(datasets, parts, strict=True)}
    if any(form != forms[next(iter(forms))] for form in forms.values()):
        raise ConfigurationError(
            f"samples of all datasets must fit into one batch, but they are {forms}: mix such "
            "data by batches, with functrain.data.Mixture"
        )
    return JoinedColumns(list(datasets), parts, with_sources, bounds)


def _form(columns: Columns) -> Any:
    """What a row of columns is like."""
    rows = [(str(t.dtype).removeprefix("torch."), list(t.shape[1:])) for t in columns.tensors]
    return columns.filled(rows)


@attrs.frozen(eq=False)
class MixedOrder:
    """Which sample of joined datasets is drawn at a place: a sampler for :class:`Batches`.

    Attributes:
        choices: which dataset each draw takes.
        bounds: those of :class:`Joined`.
        samples: draws in an epoch.
        shuffle: whether the order of a dataset is shuffled anew each time it is gone through.
    """

    choices: Choices
    bounds: Tensor
    samples: int
    shuffle: bool

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self.samples

    def indices(self, epoch: int, start: int, stop: int) -> Tensor:
        """The samples at the places ``start`` to ``stop - 1`` of an epoch, as Joined counts."""
        first = epoch * self.samples
        sources = self.choices.between(first + start, first + stop)
        found = torch.empty_like(sources)
        for source, count in enumerate(self.choices.counts(first + start)):
            drawn = sources == source
            found[drawn] = self._drawn(source, count, count + int(drawn.sum()))
        return found

    def _drawn(self, source: int, start: int, stop: int) -> Tensor:
        """The draws ``start`` to ``stop - 1`` of one dataset, which may be of several epochs."""
        begin, size = int(self.bounds[source]), int(self.bounds[source + 1] - self.bounds[source])
        parts = [torch.empty(0, dtype=torch.int64)]
        for epoch in range(start // size, -(-stop // size)):
            span = max(start - epoch * size, 0), min(stop - epoch * size, size)
            order = torch.arange(*span)
            if self.shuffle:
                own = derive(self.choices.seed, "dataset", source)
                order = Permutation(size, own, epoch).indices(*span)
            parts.append(order + begin + epoch * int(self.bounds[-1]))
        return torch.cat(parts)
