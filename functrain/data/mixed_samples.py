"""Mix samples of several datasets within each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.rng import derive
from functrain.data.batches import Batches
from functrain.data.columns import Columns, columns_of, rows
from functrain.data.mixture import named
from functrain.data.permutation import Permutation
from functrain.data.weights import WeightedDraws, weights_of
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
    """Return batches whose samples are drawn from several datasets by weights.

    The dataset of the n-th sample is a pure function of the seed and n. Each dataset has its own
    epochs, like the sources of a :class:`Mixture`. A sample that occurs twice in an epoch of the
    mixture is augmented by two random streams.

    Args:
        datasets: by name, or a list of them; each is a dataset for :class:`Batches`. Samples of
            all of them must fit into one batch.
        batch_size: samples in a batch.
        weights: as for :class:`Mixture`; sizes are in samples, times in batches.
        seed: root seed of the draws, of the datasets' order and of augmentation.
        shuffle: whether to shuffle each dataset in each of its epochs.
        length: batches in an epoch; by default enough for all samples.
        with_sources: yield ``(sources, batch)``, where ``sources`` is an int64 tensor of shape
            ``[batch]`` with the index of each sample's dataset.
        options: further options of :class:`Batches`.

    Returns:
        The batches, with random access.

    Raises:
        ConfigurationError: weights and datasets do not match.

    Example:
        >>> data = mixed_samples([torch.arange(4), torch.arange(100, 104)], 4, weights=[0.5, 0.5])
        >>> list(data)
        [tensor([103,   3,   1, 101]), tensor([100,   0,   2,   0])]
    """
    joined = _joined(named(datasets), with_sources)
    sizes = [len(dataset) for dataset in joined.datasets]
    choices = WeightedDraws(weights_of(weights, joined.names, sizes), len(sizes), seed, batch_size)
    batches = -(-sum(sizes) // batch_size) if length is None else length
    sampler = MixedOrder(choices, joined.bounds, batches * batch_size, shuffle)
    return Batches(joined, batch_size, sampler=sampler, seed=seed, **options)


@attrs.frozen(eq=False)
class JoinedDatasets:
    """Datasets concatenated and repeated without end: sample ``n`` is the one at ``n % total``.

    Indices beyond ``total`` give the repetitions of a sample different random streams.

    Attributes:
        datasets: the datasets, as columns where possible.
        with_sources: whether a sample includes the index of its dataset.
        bounds: the first index of each dataset, and the total; int64 of shape ``[datasets + 1]``.
    """

    names: list[str]
    datasets: list[Any]
    with_sources: bool
    bounds: Tensor

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getitem__(self, index: int) -> Any:
        """Return one sample."""
        place = index % len(self)
        source = int(torch.searchsorted(self.bounds, place, right=True)) - 1
        sample = self.datasets[source][place - int(self.bounds[source])]
        return (source, sample) if self.with_sources else sample


@attrs.frozen(eq=False)
class JoinedColumns(JoinedDatasets):
    """Columns concatenated without copying them."""

    def batch_at(self, indices: Tensor) -> Any:
        """Return several samples as one batch."""
        places = indices % len(self)
        sources = torch.searchsorted(self.bounds, places, right=True) - 1
        order = sources.argsort(stable=True)
        gathered = [
            columns.gathered(places[sources == source] - self.bounds[source])
            for source, columns in enumerate(self.datasets)
        ]
        back = order.argsort()
        together = [torch.cat(parts) for parts in zip(*gathered, strict=True)]
        batch = self.datasets[0].filled([rows(tensor, back) for tensor in together])
        return (sources, batch) if self.with_sources else batch


def _joined(datasets: Mapping[str, Any], with_sources: bool) -> JoinedDatasets:
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
        return JoinedDatasets(list(datasets), parts, with_sources, bounds)
    forms = {name: _form(part) for name, part in zip(datasets, parts, strict=True)}
    if any(form != forms[next(iter(forms))] for form in forms.values()):
        raise ConfigurationError(
            f"samples of all datasets must fit into one batch, but they are {forms}: mix such "
            "data by batches, with functrain.data.Mixture"
        )
    return JoinedColumns(list(datasets), parts, with_sources, bounds)


def _form(columns: Columns) -> Any:
    """Return dtype and shape of a row of each column."""
    rows = [(str(t.dtype).removeprefix("torch."), list(t.shape[1:])) for t in columns.tensors]
    return columns.filled(rows)


# A checkpoint records the name of this class as the order of its data: it must not change.
@attrs.frozen(eq=False)
class MixedOrder:
    """A sampler for :class:`Batches` over joined datasets."""

    choices: WeightedDraws
    bounds: Tensor
    samples: int
    shuffle: bool

    def __len__(self) -> int:
        """Return the samples in an epoch."""
        return self.samples

    def indices(self, epoch: int, start: int, stop: int) -> Tensor:
        """Return the indices of the samples ``start`` to ``stop - 1`` of an epoch."""
        first = epoch * self.samples
        sources = self.choices.between(first + start, first + stop)
        found = torch.empty_like(sources)
        for source, count in enumerate(self.choices.counts(first + start)):
            drawn = sources == source
            found[drawn] = self._drawn(source, count, count + int(drawn.sum()))
        return found

    def _drawn(self, source: int, start: int, stop: int) -> Tensor:
        """Return the draws ``start`` to ``stop - 1`` of one dataset, perhaps of several epochs."""
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
