"""The memory that the steps of a population take, above that of its state.

    python -m benchmarks.population_memory [MEMBERS] [eager | donated | compiled]

It is the peak of the resident memory over some steps, less what was resident before the state was
made. Linux only. Each measurement takes a process of its own.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import torch
from torch import Tensor

import functrain as ft
from benchmarks.populations import BATCH, loss
from benchmarks.steps import memory
from benchmarks.steps.models import mlp

_KINDS = ("eager", "donated", "compiled")
_MB = 2**20


def made(members: int, kind: str) -> Any:
    """Return the population."""
    rates = [1e-3 * (1 + n / members) for n in range(members)]
    pop = ft.population(ft.program(mlp, loss, ft.optim.AdamW(1e-3)), {"lr": rates})
    if kind == "eager":
        return pop
    return ft.donated(ft.compiled(pop) if kind == "compiled" else pop)


def steps(pop: Any, state: ft.TrainState, count: int) -> ft.TrainState:
    """Make some steps."""
    for _ in range(count):
        state, _ = pop.train_step(state, BATCH)
    return state


def main(members: int, kind: str) -> None:
    """Measure, and print one row."""
    torch.set_num_threads(1)
    pop = made(members, kind)
    # Code is loaded and compiled before; only for graphs must the members be as many.
    warmed = pop if kind == "compiled" else made(2, kind)
    steps(warmed, warmed.init(), 2)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = memory.resident()
    held = [pop.init()]
    size = sum(leaf.nbytes for _, leaf in ft.tree.items(held[0]) if isinstance(leaf, Tensor))
    memory.forget_peak()
    steps(pop, held.pop(), 5)
    above = memory.highest() - before - size
    print(f"{kind:9} {members} members: state {size / _MB:.1f} MB, above it {above / _MB:.1f} MB")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else 64, given[1] if len(given) > 1 else _KINDS[-1])
