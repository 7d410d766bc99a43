"""Models and runs for tests of several processes. A rank imports them by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import functrain as ft
from functrain import optim, tree

MUON = optim.groups([(optim.is_matrix, optim.Muon(lr=0.02)), ("*", optim.AdamW(lr=0.01))])
Batch = tuple[Tensor, Tensor]


class MLP(nn.Module):
    """With batch norm and dropout; two layers are cut, the others are too small."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(16, 128), nn.BatchNorm1d(128)
        self.second, self.drop = nn.Linear(128, 64), nn.Dropout(0.2)
        self.last = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        out: Tensor = self.last(self.drop(torch.relu(self.second(x))))
        return out


class Tiny(nn.Module):
    """Without a leaf that can be cut, nor batch norm: parts of one sample are fine."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(16, 5), nn.Dropout(0.3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.drop(torch.tanh(self.first(x))))
        return out


class GPT(nn.Module):
    """One block of attention over a vocabulary of 96."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(96, 32), nn.Embedding(16, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(32, 96, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(16))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.tokens(x) + self.places.weight[: x.shape[1]]
        hidden = self.block(hidden, src_mask=self.mask, is_causal=True)
        out: Tensor = self.head(hidden)
        return out


def classify(model: nn.Module, batch: Batch) -> ft.Loss:
    """Weighted by the samples whose label counts."""
    x, y = batch
    out = model(x)
    counted = y >= 0
    each = F.cross_entropy(out, y.clamp(min=0), reduction="none")
    value = (each * counted).sum() / counted.sum().clamp(min=1)
    right = (out.argmax(-1) == y).float().mean()
    return ft.Loss(value, counted.sum(), {"right": right})


def next_token(model: nn.Module, x: Tensor) -> Tensor:
    """Predict each token from those before it."""
    return F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def batches(model: str, sizes: list[int]) -> list[Any]:
    """Return the same batches on every rank."""
    generator = torch.Generator().manual_seed(7)
    if model == "GPT":
        return [torch.randint(0, 96, (size, 17), generator=generator) for size in sizes]
    return [
        (
            torch.randn(size, 16, generator=generator),
            torch.randint(-1, 3, (size,), generator=generator),
        )
        for size in sizes
    ]


def made(model: str, optimizer: str = "AdamW", **options: Any) -> ft.Program:
    """Return a program for one process."""
    torch.manual_seed(0)
    loss = next_token if model == "GPT" else classify
    options = {"clip_norm": 0.5, "ema": 0.9, **options}
    module = {"MLP": MLP, "Tiny": Tiny, "GPT": GPT}[model]()
    return ft.program(module, loss, getattr(ft.optim, optimizer)(lr=1e-2), **options)


def digests(program: ft.Program, model: str, sizes: list[int]) -> list[Any]:
    """Return digest, loss and norm after each step; all ranks call this together."""
    return after_each(program, batches(model, sizes))


def after_each(program: ft.Program, given: Iterable[Any]) -> list[Any]:
    """Return digest and metrics after the step of each batch; all ranks call this together."""
    state, found = program.init(seed=3), []
    for batch in given:
        state, metrics = program.train_step(state, batch)
        numbers = {name: value.item() for name, value in metrics.items()}
        found.append((tree.digest(program.gathered(state)), numbers))
    return found


def sharded_digests(
    model: str,
    sizes: list[int],
    parts: int,
    shard: Any,
    optimizer: str = "AdamW",
    donated: bool = False,
    options: dict[str, Any] | None = None,
) -> list[Any]:
    """Run the steps of a sharded program."""
    plain = made(model, optimizer, **(options or {}))
    program = ft.sharded(plain, ft.Placement(shard=shard), parts=parts)
    return digests(ft.donated(program) if donated else program, model, sizes)


def every_placement(model: str, sizes: list[int], parts: int, optimizers: list[str]) -> list[Any]:
    """Return the digests of all placements and optimizers, in one launch."""
    cases = itertools.product(optimizers, ["none", "optimizer", "all"])
    return [sharded_digests(model, sizes, parts, shard, name) for name, shard in cases]
