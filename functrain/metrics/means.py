"""Means over samples: of anything, of right answers, and perplexity."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.core.loss import not_negative
from functrain.core.precision import widest

# Named tuples rather than attrs classes: a user may put their loss under ``torch.compile``, and
# Dynamo cannot construct frozen attrs objects.


class Mean(NamedTuple):
    """The weighted mean of values.

    Attributes:
        total: sum of value times weight, in the widest dtype of the device.
        weight: sum of weights.

    Example:
        >>> first, second = Mean.of(torch.tensor([1.0, 2.0])), Mean.of(torch.tensor([6.0]))
        >>> first.merge(second).compute()
        tensor(3., dtype=torch.float64)
    """

    total: Tensor
    weight: Tensor

    @classmethod
    def of(cls, values: Tensor, weights: Tensor | None = None) -> Mean:
        """Return the mean of values.

        Args:
            values: of any shape.
            weights: of the same shape, or one that broadcasts to it; by default all 1. Values
                with weight 0 are ignored, even NaN, such as the mean over an empty batch; with one
                below 0 the mean is NaN.
        """
        wide = values.detach().to(widest(values.device))
        each = torch.ones_like(wide) if weights is None else not_negative(weights.detach().to(wide))
        return cls((wide * each).masked_fill(each == 0, 0).sum(), each.expand_as(wide).sum())

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> Mean:
        """Return the mean of no values."""
        zero = torch.zeros((), dtype=widest(torch.device(device)), device=device)
        return cls(zero, zero)

    def merge(self, other: Mean) -> Mean:
        """Return the mean over the values of both."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> Tensor:
        """Return the mean; NaN of no values."""
        return self.total / self.weight


class Accuracy(NamedTuple):
    """The share of right answers.

    Attributes:
        right: how many were right.
        answers: how many there were.

    Example:
        >>> logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
        >>> Accuracy.of(logits, torch.tensor([0, 1, -100])).compute()
        tensor(1., dtype=torch.float64)
    """

    right: Tensor
    answers: Tensor

    @property
    def higher_is_better(self) -> bool:
        """Return true: more is better."""
        return True

    @classmethod
    def of(
        cls, logits: Tensor, targets: Tensor, *, top: int = 1, ignore_index: int = -100
    ) -> Accuracy:
        """Return the share of targets among the largest logits.

        Args:
            logits: [..., classes].
            targets: int64 classes, [...].
            top: so many of the largest count.
            ignore_index: targets of this value are left out.
        """
        logits, kept = logits.detach(), targets != ignore_index
        # As `argmax` does for one: among equal logits the first.
        best = logits.argmax(-1, keepdim=True) if top == 1 else logits.topk(top, -1).indices
        right = (best == targets.unsqueeze(-1)).any(-1) & kept
        wide = widest(logits.device)
        return cls(right.sum().to(wide), kept.sum().to(wide))

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> Accuracy:
        """Return the accuracy of no answers."""
        return cls(*Mean.empty(device))

    def merge(self, other: Accuracy) -> Accuracy:
        """Return the share over the answers of both."""
        return Accuracy(self.right + other.right, self.answers + other.answers)

    def compute(self) -> Tensor:
        """Return a number from 0 to 1; NaN without answers."""
        return self.right / self.answers


class Perplexity(NamedTuple):
    """The exponential of the mean negative log-likelihood of tokens (Jelinek et al., 1977).

    Attributes:
        total: sum of negative log-likelihoods.
        tokens: how many.

    Example:
        >>> Perplexity.of(torch.zeros(1, 4, 8), torch.zeros(1, 4, dtype=torch.int64)).compute()
        tensor(8.0000, dtype=torch.float64)
    """

    total: Tensor
    tokens: Tensor

    @property
    def higher_is_better(self) -> bool:
        """Return false: less is better."""
        return False

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor, *, ignore_index: int = -100) -> Perplexity:
        """Return the perplexity of targets.

        Args:
            logits: [..., vocabulary].
            targets: int64 tokens, [...].
            ignore_index: targets of this value are left out.
        """
        flat, wide = logits.detach().flatten(0, -2), widest(logits.device)
        each = F.cross_entropy(
            flat.float(), targets.flatten(), ignore_index=ignore_index, reduction="none"
        )
        return cls(each.to(wide).sum(), (targets != ignore_index).sum().to(wide))

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> Perplexity:
        """Return the perplexity of no tokens."""
        return cls(*Mean.empty(device))

    def merge(self, other: Perplexity) -> Perplexity:
        """Return the perplexity of the tokens of both."""
        return Perplexity(self.total + other.total, self.tokens + other.tokens)

    def compute(self) -> Tensor:
        """At least 1; NaN of no tokens."""
        return (self.total / self.tokens).exp()
