"""A small model and made-up data that the configurations beside this file train."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft

CLASSES = 3


class Classifier(nn.Module):
    """Two layers with a norm between them.

    Args:
        inputs: features of a sample.
        width: hidden units.
        dropout: probability before the head.
    """

    def __init__(self, inputs: int = 8, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, [batch, classes], of features, [batch, inputs]."""
        logits: Tensor = self.head(self.dropout(self.encoder(features)))
        return logits


def loss(model: nn.Module, batch: Any, label_smoothing: float = 0.0) -> ft.Loss:
    """Cross-entropy, and accuracy beside it."""
    features, labels = batch
    logits = model(features)
    accuracy = (logits.argmax(-1) == labels).float().mean()
    value = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return ft.Loss(value, metrics={"accuracy": accuracy})


def data(
    samples: int = 256, batch_size: int = 16, seed: int = 0, noise: float = 0.5
) -> ft.data.Batches:
    """Points around the corners of a cube, one class to each."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.randn(CLASSES, 8, generator=generator)
    labels = torch.randint(CLASSES, (samples,), generator=generator)
    points = corners[labels] + noise * torch.randn(samples, 8, generator=generator)
    return ft.data.Batches((points, labels), batch_size, seed=seed)


def held_out(samples: int = 64, noise: float = 0.5) -> ft.data.Batches:
    """Other points of the same kind, in order."""
    return ft.data.Batches(data(samples, noise=noise).dataset, samples, shuffle=False)
