"""One train step beside the plain in-place PyTorch loop with fused AdamW: ratios, less is better.

    python benchmarks/step.py [--repeats 200] [--threads 1] [--compiled]

Everything runs in one process, interleaved: each repeat times a few steps of every contender, one
after the other, and the minimum (and median) over repeats is compared. Machine load then falls on
all of them alike.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import functrain as ft

Advance = Callable[[], None]


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        q, k, v = (
            part.view(split).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A small language model with tied embedding."""

    def __init__(self, vocabulary: int = 96, width: int = 128, length: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(4)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def classify(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def predict(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def mlp() -> tuple[nn.Module, Any, Any]:
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return model, classify, (torch.randn(64, 64), torch.randint(0, 10, (64,)))


def tiny_linears() -> tuple[nn.Module, Any, Any]:
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(100)))
    return model, classify, (torch.randn(64, 16), torch.randint(0, 16, (64,)))


def gpt() -> tuple[nn.Module, Any, Any]:
    tokens = torch.randint(0, 96, (8, 65))
    return GPT(), predict, (tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


WORK = {"small MLP": (mlp, 20), "100 Linears of 16": (tiny_linears, 3), "4-layer GPT": (gpt, 1)}


def plain(model: nn.Module, loss: Any, batch: Any) -> Advance:
    """What people write: backward, fused AdamW, zero_grad."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def advance() -> None:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()

    return advance


def functional(program: ft.Program, batch: Any) -> Advance:
    """The same with a program; only the newest state is kept."""
    state = program.init()

    def advance() -> None:
        nonlocal state
        state, _ = program.train_step(state, batch)

    return advance


def contenders(model: nn.Module, loss: Any, batch: Any, compiled: bool) -> dict[str, Advance]:
    program = ft.program(model, loss, ft.optim.AdamW(lr=1e-3))
    unchecked = ft.program(model, loss, ft.optim.AdamW(lr=1e-3), nonfinite="ignore")
    found = {
        "plain": plain(model, loss, batch),
        "pure": functional(program, batch),
        "donated": functional(ft.donated(program), batch),
        "donated, nonfinite=ignore": functional(ft.donated(unchecked), batch),
    }
    if compiled:
        found["compiled"] = functional(ft.compiled(program), batch)
    return found


def measure(advances: dict[str, Advance], repeats: int, steps: int) -> dict[str, list[float]]:
    """Seconds of one step, for each contender and repeat."""
    times: dict[str, list[float]] = {name: [] for name in advances}
    for repeat in range(-3, repeats):
        for name, advance in advances.items():
            begin = time.perf_counter()
            for _ in range(steps):
                advance()
            if repeat >= 0:
                times[name].append((time.perf_counter() - begin) / steps)
    return times


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=200)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--compiled", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    title = f"torch {torch.__version__}, {options.threads} thread(s), {options.repeats} repeats"
    table = Table("work", "program", "min (us)", "ratio of minima", "ratio of medians", title=title)
    for name, (make, steps) in WORK.items():
        torch.manual_seed(0)
        times = measure(contenders(*make(), options.compiled), options.repeats, steps)
        base = times["plain"]
        for contender, seconds in times.items():
            low = min(seconds)
            ratio = low / min(base)
            middle = statistics.median(seconds) / statistics.median(base)
            table.add_row(name, contender, f"{low * 1e6:.0f}", f"{ratio:.2f}", f"{middle:.2f}")
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
