"""Handwritten digits: a small convolutional network on the data set that scikit-learn ships.

1,797 images of 8x8 pixels; 1,437 to train on and 360 held out, by a fixed permutation. Written as
one would write it for any PyTorch project: a module, a loss, two functions that make data.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain.errors.optional import require

TRAINING = 1437

Sample = tuple[Tensor, Tensor]


class ConvNet(nn.Module):
    """Three convolutions with batch norm, dropout, and a linear head.

    Args:
        width: channels of the first convolution; the others have twice as many.
        dropout: probability before the head.
    """

    def __init__(self, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, width),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 2 * width),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(8 * width, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, [batch, 10], of images, [batch, 1, 8, 8]."""
        logits: Tensor = self.head(self.features(images))
        return logits


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    """Cross-entropy, and accuracy beside it."""
    images, labels = batch
    logits = model(images)
    accuracy = (logits.argmax(-1) == labels).float().mean()
    return ft.Loss(F.cross_entropy(logits, labels), metrics={"accuracy": accuracy})


def augmented(sample: Sample) -> Sample:
    """Return an image turned, scaled and shifted a little.

    It draws from torch's global generator as any augmentation code does; ``Batches`` seeds that
    for each sample, so the result does not depend on workers or on resumption.
    """
    image, label = sample
    angle, size = (torch.rand(2) - 0.5) * torch.tensor([0.4, 0.2])
    shift = (torch.rand(2) - 0.5) * 0.35
    cos, sin = (1 + size) * angle.cos(), (1 + size) * angle.sin()
    matrix = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]]).view(1, 2, 3)
    grid = F.affine_grid(matrix, [1, 1, 8, 8], align_corners=False)
    return F.grid_sample(image[None], grid, align_corners=False)[0], label


def training_data(
    batch_size: int = 64, seed: int = 0, augment: bool = True, workers: int = 0
) -> ft.data.Batches:
    """Return the training images, shuffled and augmented."""
    columns = _columns(slice(None, TRAINING))
    transform = augmented if augment else None
    return ft.data.Batches(columns, batch_size, seed=seed, transform=transform, workers=workers)


def validation_data(batch_size: int = 360) -> ft.data.Batches:
    """Return the held-out images, in order."""
    return ft.data.Batches(_columns(slice(TRAINING, None)), batch_size, shuffle=False)


def _columns(part: slice) -> tuple[Tensor, Tensor]:
    table = torch.from_numpy(np.loadtxt(_file(), dtype=np.float32, delimiter=","))
    images, labels = table[:, :-1].view(-1, 1, 8, 8) / 16, table[:, -1].long()
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[part]
    return images[chosen], labels[chosen]


def _file() -> Path:
    # Not by sklearn.datasets.load_digits: importing scikit-learn takes longer than an epoch.
    found = importlib.util.find_spec("sklearn")
    origin = found and found.origin
    package = origin or require("sklearn", "examples").__file__  # which says how to install it
    return Path(package).with_name("datasets") / "data" / "digits.csv.gz"
