"""Datasets of Hugging Face ``datasets``: read by whole batches, as they are stored.

They are known by their class's module, so that the package itself need not be imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor


@attrs.frozen(eq=False)
class Rows:
    """A dataset without a random transform of its own, whose samples come many at once.

    Attributes:
        dataset: a ``datasets.Dataset``.
    """

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """One sample: a dict."""
        return self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Several samples."""
        samples: list[Any] = self.dataset.__getitems__(list(indices))
        return samples


@attrs.frozen(eq=False)
class TorchRows(Rows):
    """A dataset that gives tensors, and so a batch at once."""

    def batch_at(self, indices: Tensor) -> Any:
        """Several samples as a dict of columns; those of uneven lengths stay a list."""
        return self.dataset[indices.tolist()]


def dataset_of(dataset: Any) -> Any:
    """The dataset as it is best read; itself, if it is none of Hugging Face."""
    if not is_dataset(dataset):
        return dataset
    kind = dataset.format["type"]
    if kind == "custom":  # its transform may draw random numbers, and has a stream for each sample
        return dataset
    return TorchRows(dataset) if kind == "torch" else Rows(dataset)


def is_dataset(dataset: Any) -> bool:
    """Whether it is a ``datasets.Dataset``."""
    kind = type(dataset)
    return kind.__module__.partition(".")[0] == "datasets" and kind.__name__ == "Dataset"
