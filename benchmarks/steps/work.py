"""The tasks: model, loss and batch, the same in every process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.steps.models import GPT, convnet, linears, mlp

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Any, Any], Tensor]
LEARNING_RATE = 1e-3


@attrs.frozen
class Work:
    """One model and its data.

    Attributes:
        name: for the command line.
        title: for the tables.
        build: makes the module; random numbers are those of seed 0.
        data: makes the batch that every step is given.
        loss: of model and batch.
        steps: in one turn of a contender; a turn takes some milliseconds.
        lead: steps before these that are not timed: others ran in between and emptied the caches.
        repeats: turns of each contender.
        accumulate: micro-batches in a step.
        device: where it runs.
        tokens: in a step, for language models on a GPU.
    """

    name: str
    title: str
    build: Callable[[], nn.Module]
    data: Callable[[], Batch]
    loss: Loss
    steps: int
    lead: int
    repeats: int
    accumulate: int = 1
    device: str = "cpu"
    tokens: int = 0

    def model(self) -> nn.Module:
        """Make a new module in training mode; its weights are the same each time."""
        torch.manual_seed(0)
        return self.build().to(self.device).train()

    def batch(self) -> Batch:
        """Make the whole batch of a step."""
        torch.manual_seed(1)
        inputs, targets = self.data()
        return inputs.to(self.device), targets.to(self.device)

    def parts(self) -> list[Batch]:
        """Cut the batch into its micro-batches."""
        cut = (tensor.chunk(self.accumulate) for tensor in self.batch())
        return list(zip(*cut, strict=True))


def classify(model: Any, batch: Any) -> Tensor:
    """Return the cross entropy of one class per sample."""
    return F.cross_entropy(model(batch[0]), batch[1])


def predict(model: Any, batch: Any) -> Tensor:
    """Return the cross entropy of the next token at every position."""
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def vectors(width: int, classes: int) -> Batch:
    """Make 64 random vectors."""
    return torch.randn(64, width), torch.randint(0, classes, (64,))


def digits() -> Batch:
    """Load the first 64 digits of scikit-learn."""
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    inputs = torch.tensor(images[:64], dtype=torch.float32).reshape(64, 1, 8, 8) / 16
    return inputs, torch.tensor(targets[:64])


def text(rows: int, length: int, vocabulary: int) -> Batch:
    """Make random tokens and their successors."""
    tokens = torch.randint(0, vocabulary, (rows, length + 1))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


MLP = Work("mlp", "small MLP", mlp, partial(vectors, 64, 10), classify, 20, 4, 200)
_ALL = (
    MLP,
    Work("linears", "100 Linears of 16", linears, partial(vectors, 16, 16), classify, 3, 1, 200),
    Work("convnet", "convnet on digits", convnet, digits, classify, 4, 1, 100),
    Work(
        "gpt",
        "4-layer GPT",
        partial(GPT, 4, 128, 4, vocabulary=96, length=64),
        partial(text, 8, 64, 96),
        predict,
        steps=1,
        lead=0,
        repeats=60,
    ),
    Work(
        "gpt12",
        "12-layer GPT, 4 micro-batches",
        partial(GPT, 12, 256, 8, vocabulary=96, length=64),
        partial(text, 16, 64, 96),
        predict,
        steps=1,
        lead=0,
        repeats=15,
        accumulate=4,
    ),
)
WORKS: dict[str, Work] = {work.name: work for work in _ALL}
