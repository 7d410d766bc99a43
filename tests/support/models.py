"""Models of different kinds, each with a loss and batches, for tests over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import functrain as ft


class TinyTransformer(nn.Module):
    """Embedding and head share one weight; attention, dropout, layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens)))


class Recurrent(nn.Module):
    """nn.LSTM keeps its own list of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 8, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Checkpointed(nn.Module):
    """Activation checkpointing with dropout inside: the recomputation must draw the same mask."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=False))


class Counting(nn.Module):
    """Buffers of several dtypes, one written in place, one replaced; a submodule used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(6, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(6, dtype=torch.float64), persistent=False)
        self.hooked = 0
        self.head.register_forward_hook(lambda module, args, output: output * 1.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.seen |= (x > 0).any(0)
            self.mean = 0.9 * self.mean + 0.1 * x.detach().double().mean(0)
        return self.head(self.shared(torch.relu(self.shared(x))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(16, 3))


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.ReLU(inplace=True),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def classify(model: nn.Module, batch: Any) -> ft.Loss:
    x, y = batch
    logits = model(x)
    accuracy = (logits.argmax(-1) == y).float().mean()
    return ft.Loss(F.cross_entropy(logits, y), metrics={"accuracy": accuracy})


def predict_next(model: nn.Module, batch: Any) -> Tensor:
    tokens = batch["tokens"]
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def _classified(*shape: int) -> Callable[[int, int], Any]:
    def make(seed: int, size: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(size, *shape, generator=generator)
        return x, torch.randint(0, 3, (size,), generator=generator)

    return make


def _tokens(seed: int, size: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 11, (size, 8), generator=generator)
    return {"tokens": tokens, "source": ["text"] * size, "note": None}


@attrs.frozen
class Case:
    """A model factory, its loss, and batches as a function of (seed, size)."""

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Any], Any]
    batch: Callable[[int, int], Any]

    def program(self, optimizer: Any = None, **options: Any) -> ft.Program:
        torch.manual_seed(0)
        optimizer = optimizer or ft.optim.AdamW(lr=1e-2)
        return ft.program(self.model(), self.loss, optimizer, **options)


CASES = [
    Case("mlp", mlp, classify, _classified(6)),
    Case("convnet", convnet, classify, _classified(1, 4, 4)),
    Case("lstm", Recurrent, classify, _classified(4, 5)),
    Case("transformer", TinyTransformer, predict_next, _tokens),
    Case("checkpointed", Checkpointed, classify, _classified(6)),
    Case("counting", Counting, classify, _classified(6)),
]
