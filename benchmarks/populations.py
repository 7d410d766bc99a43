"""Populations and several steps in one call against the plain PyTorch loop and JAX.

    python -m benchmarks.populations [--gpt] [MEMBERS ...]

Each contender takes turns with the others in one process and on one thread; the least CPU time for
a member and step counts. The plain loop trains one member with the fused AdamW of torch. Rows of
JAX (``vmap`` and ``lax.scan``, with optax) are of the MLP, and are left out where it is not
installed. ``--gpt`` trains a GPT of 2 layers of 64 on 8 lines of 32 characters instead.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from benchmarks.steps.models import GPT, mlp

_CALL = 32  # steps in one call
_CHUNK = 8  # members at once
Batch = tuple[Tensor, Tensor]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy."""
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


@attrs.frozen
class Work:
    """A network and its batch, with how often each contender is measured."""

    model: Callable[[], nn.Module]
    batch: Batch
    turns: int
    steps: int

    @property
    def program(self) -> ft.Program:
        """Its training."""
        return ft.program(self.model, loss, ft.optim.AdamW(1e-3))

    def plain(self) -> Callable[[], None]:
        """Return a step of the plain loop."""
        net = self.model()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)

        def step() -> None:
            optimizer.zero_grad()
            loss(net, self.batch).backward()
            optimizer.step()

        return step

    def population(
        self, members: int, compiled: bool, chunk_size: int | None = None
    ) -> Callable[[], None]:
        """Return a step of a population."""
        rates = [1e-3 * (1 + n / members) for n in range(members)]
        pop = ft.population(self.program, {"lr": rates}, chunk_size=chunk_size)
        if compiled:
            pop = ft.donated(ft.compiled(pop))
        held = [pop.init()]

        def step() -> None:
            held.append(pop.train_step(held.pop(), self.batch)[0])

        return step

    def consecutive(self, directory: str | None) -> Callable[[], None]:
        """Return a call of ``functrain.steps``, compiled ahead of time if given a directory."""
        program = ft.donated(ft.compiled(self.program, directory=directory))
        held = [program.init()]

        def call() -> None:
            held.append(ft.steps(program, held.pop(), [self.batch] * _CALL)[0])

        return call


BATCH = torch.randn(64, 64), torch.randint(0, 10, (64,))
_TOKENS = torch.randint(0, 64, (2, 8, 32)).unbind()
WORKS = {
    "mlp": Work(mlp, BATCH, turns=7, steps=20),
    "gpt": Work(lambda: GPT(2, 64, 4, 64, 32), (_TOKENS[0], _TOKENS[1]), turns=5, steps=3),
}


def _in_jax(work: Work, members: list[int]) -> dict[tuple[str, int], Callable[[], None]]:
    if any(importlib.util.find_spec(name) is None for name in ("jax", "optax")):
        return {}
    # Before JAX starts: one thread, as torch has here.
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    from benchmarks import populations_in_jax as in_jax

    found = {("JAX, vmap", n): in_jax.population(mlp(), work.batch, n) for n in members}
    return {**found, ("JAX, lax.scan", _CALL): in_jax.scanned(mlp(), work.batch, _CALL)}


def main(name: str, members: list[int]) -> None:
    """Measure, and print one row a contender."""
    torch.set_num_threads(1)
    work = WORKS[name]
    contenders = {("plain loop", 1): work.plain()}
    for count in members:
        contenders["population", count] = work.population(count, compiled=False)
        contenders["population, compiled and donated", count] = work.population(count, True)
        if count > _CHUNK:
            title = f"the same, chunk_size={_CHUNK}"
            contenders[title, count] = work.population(count, True, _CHUNK)
    with tempfile.TemporaryDirectory() as directory:
        contenders["functrain.steps, compiled and donated", _CALL] = work.consecutive(None)
        contenders["functrain.steps, compiled ahead", _CALL] = work.consecutive(directory)
        if name == "mlp":
            contenders |= _in_jax(work, members)
        least = _least(work, contenders)
    first = least["plain loop", 1]
    for (title, count), seconds in least.items():
        micros = f"{seconds * 1e6:7.0f} us a member and step"
        print(f"{title:38} {count:3} at once {micros} {seconds / first:6.3f} of the plain loop")


def _least(
    work: Work, contenders: dict[tuple[str, int], Callable[[], None]]
) -> dict[tuple[str, int], float]:
    least = dict.fromkeys(contenders, float("inf"))
    for step in contenders.values():
        step()
        step()
    for _ in range(work.turns):
        for key, step in contenders.items():
            begin = time.process_time()
            for _ in range(work.steps):
                step()
            least[key] = min(least[key], (time.process_time() - begin) / work.steps / key[1])
    return least


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpt", action="store_true")
    parser.add_argument("members", nargs="*", type=int, default=[8, 64])
    given = parser.parse_args()
    main("gpt" if given.gpt else "mlp", given.members)
