"""Read datasets of Hugging Face ``datasets`` in whole batches.

They are recognized by the module of their class, so that the package is not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor


@attrs.frozen(eq=False)
class Rows:
    """A dataset without a random transform, which reads many samples at once."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return one sample: a dict."""
        return self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return several samples."""
        samples: list[Any] = self.dataset.__getitems__(list(indices))
        return samples


@attrs.frozen(eq=False)
class TorchRows(Rows):
    """A dataset of tensors, which returns a batch at once."""

    def batch_at(self, indices: Tensor) -> Any:
        """Return several samples as a dict of columns; columns of unequal lengths stay lists."""
        return self.dataset[indices.tolist()]


def dataset_of(dataset: Any) -> Any:
    """Wrap a Hugging Face dataset for fast reading; return other datasets unchanged."""
    if not is_dataset(dataset):
        return dataset
    kind = dataset.format["type"]
    if kind == "custom":  # its transform may draw random numbers, from a stream for each sample
        return dataset
    return TorchRows(dataset) if kind == "torch" else Rows(dataset)


def is_dataset(dataset: Any) -> bool:
    """Return whether a dataset is a ``datasets.Dataset``."""
    kind = type(dataset)
    return kind.__module__.partition(".")[0] == "datasets" and kind.__name__ == "Dataset"
