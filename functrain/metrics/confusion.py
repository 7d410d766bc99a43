"""Count which classes are predicted for which."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ConfusionMatrix(NamedTuple):
    """How often each class was predicted for each.

    Attributes:
        counts: int64 [classes, classes]; rows are targets, columns predictions.

    Example:
        >>> matrix = ConfusionMatrix.of(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), classes=2)
        >>> matrix.counts.tolist()
        [[1, 1], [0, 1]]
        >>> {name: round(value.item(), 3) for name, value in matrix.compute().items()}
        {'accuracy': 0.667, 'precision': 0.75, 'recall': 0.75, 'f1': 0.667}
    """

    counts: Tensor

    @property
    def higher_is_better(self) -> bool:
        """Return true: more is better for all computed numbers."""
        return True

    @classmethod
    def of(
        cls, predictions: Tensor, targets: Tensor, classes: int, *, ignore_index: int = -100
    ) -> ConfusionMatrix:
        """Count predictions.

        Args:
            predictions: int64 classes, or logits with a last dimension of ``classes`` more.
            targets: int64 classes; those equal to ``ignore_index`` are left out.
            classes: how many there are.
            ignore_index: see ``targets``.
        """
        if predictions.ndim > targets.ndim:
            predictions = predictions.argmax(-1)
        kept = targets != ignore_index
        cells = torch.where(kept, targets, 0) * classes + predictions.detach()
        counts = torch.zeros(classes * classes, dtype=torch.int64, device=targets.device)
        added = counts.scatter_add(0, cells.flatten(), kept.flatten().to(torch.int64))
        return cls(added.reshape(classes, classes))

    @classmethod
    def empty(cls, classes: int, device: torch.device | str = "cpu") -> ConfusionMatrix:
        """Return the counts of no predictions."""
        return cls(torch.zeros(classes, classes, dtype=torch.int64, device=device))

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Return the sum of both counts."""
        return ConfusionMatrix(self.counts + other.counts)

    def compute(self) -> dict[str, Tensor]:
        """Accuracy, and means over classes of precision, recall and F1.

        As scikit-learn's ``average="macro", zero_division=0``: over the classes that occur among
        targets or predictions, and what would be divided by zero is zero.
        """
        counts = self.counts.double()
        right, targets, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        there = (targets + predicted) > 0

        def macro(denominator: Tensor, numerator: Tensor = right) -> Tensor:
            return torch.where(denominator > 0, numerator / denominator, 0.0)[there].mean()

        return {
            "accuracy": right.sum() / counts.sum(),
            "precision": macro(predicted),
            "recall": macro(targets),
            "f1": macro(targets + predicted, 2 * right),
        }
