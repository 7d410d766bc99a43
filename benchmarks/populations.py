"""Populations and several steps in one call against the plain PyTorch loop and JAX.

    python -m benchmarks.populations [MEMBERS ...]

Each contender takes turns with the others in one process and on one thread; the least CPU time for
a member and step counts. The plain loop trains one member with the fused AdamW of torch. Rows of
JAX (``vmap`` and ``lax.scan``, with optax) are left out where it is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft

_TURNS, _STEPS = 7, 20
_CALL = 32  # steps in one call


def model() -> nn.Module:
    """Return the network of every member."""
    layers = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    return nn.Sequential(*layers)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


BATCH = torch.randn(64, 64), torch.randint(0, 10, (64,))


def plain() -> Callable[[], None]:
    """Return a step of the plain loop."""
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss(net, BATCH).backward()
        optimizer.step()

    return step


def population(members: int, compiled: bool) -> Callable[[], None]:
    """Return a step of a population."""
    rates = [1e-3 * (1 + n / members) for n in range(members)]
    pop = ft.population(ft.program(model, loss, ft.optim.AdamW(1e-3)), {"lr": rates})
    if compiled:
        pop = ft.donated(ft.compiled(pop))
    held = [pop.init()]

    def step() -> None:
        held.append(pop.train_step(held.pop(), BATCH)[0])

    return step


def steps(count: int) -> Callable[[], None]:
    """Return a call of ``functrain.steps``."""
    program = ft.donated(ft.compiled(ft.program(model, loss, ft.optim.AdamW(1e-3))))
    held = [program.init()]

    def call() -> None:
        held.append(ft.steps(program, held.pop(), [BATCH] * count)[0])

    return call


def _in_jax(members: list[int]) -> dict[tuple[str, int], Callable[[], None]]:
    if any(importlib.util.find_spec(name) is None for name in ("jax", "optax")):
        return {}
    # Before JAX starts: one thread, as torch has here.
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    from benchmarks import populations_in_jax as in_jax

    found = {("JAX, vmap", n): in_jax.population(model(), BATCH, n) for n in members}
    return {**found, ("JAX, lax.scan", _CALL): in_jax.scanned(model(), BATCH, _CALL)}


def main(members: list[int]) -> None:
    """Measure, and print one row a contender."""
    torch.set_num_threads(1)
    contenders = {("plain loop", 1): plain()}
    for count in members:
        contenders["population", count] = population(count, compiled=False)
        contenders["population, compiled and donated", count] = population(count, compiled=True)
    contenders["functrain.steps, compiled and donated", _CALL] = steps(_CALL)
    contenders |= _in_jax(members)
    least = dict.fromkeys(contenders, float("inf"))
    for step in contenders.values():
        step()
        step()
    for _ in range(_TURNS):
        for key, step in contenders.items():
            begin = time.process_time()
            for _ in range(_STEPS):
                step()
            least[key] = min(least[key], (time.process_time() - begin) / _STEPS / key[1])
    first = least["plain loop", 1]
    for (name, count), seconds in least.items():
        micros = f"{seconds * 1e6:7.0f} us a member and step"
        print(f"{name:38} {count:3} at once {micros} {seconds / first:6.3f} of the plain loop")


if __name__ == "__main__":
    main([int(one) for one in sys.argv[1:]] or [8, 64])
