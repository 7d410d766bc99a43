"""Datasets read sample by sample, each with random streams of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import attrs

from functrain.rng import derive, sample_scope


@attrs.frozen(eq=False)
class Samples:
    """How batches are made of single samples.

    Attributes:
        dataset: has ``__len__`` and ``__getitem__(index)``.
        transform: applied to each sample, or ``None``.
        collate: makes a batch of a list of samples.
        seed: root of the random streams.
    """

    dataset: Any
    transform: Callable[[Any], Any] | None
    collate: Callable[[list[Any]], Any]
    seed: int

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, epoch: int, index: int, indices: Sequence[int]) -> Any:
        """Make one batch.

        Each sample finds torch's, Python's and NumPy's generators seeded for it alone, so what
        it draws depends on nothing but the seed, the epoch and its own index. An error of the
        user's code leaves with a note of the sample and epoch.

        Args:
            epoch: which pass over the data.
            index: which batch of it.
            indices: the samples.
        """
        with sample_scope() as scope, _Place(epoch, index) as place:
            samples = []
            for sample in indices:
                place.sample = sample
                scope.seed(derive(self.seed, "sample", epoch, sample))
                value = self.dataset[sample]
                samples.append(value if self.transform is None else self.transform(value))
            place.sample = None
            scope.seed(derive(self.seed, "collate", epoch, index))
            return self.collate(samples)


class _Place:
    """Notes on an exception which sample was being read."""

    __slots__ = ("epoch", "index", "sample")

    def __init__(self, epoch: int, index: int) -> None:
        self.epoch = epoch
        self.index = index
        self.sample: int | None = None

    def __enter__(self) -> _Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            what = "collating" if self.sample is None else f"reading sample {self.sample} for"
            error.add_note(f"(while {what} batch {self.index} of epoch {self.epoch})")
