"""A step of a population against the plain PyTorch loop, in CPU time for each member.

    python -m benchmarks.populations [MEMBERS ...]

Each contender takes turns with the others in one process and on one thread; the least time counts.
The plain loop trains one member with the fused AdamW of torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft

_TURNS, _STEPS = 7, 20


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


def main(members: list[int]) -> None:
    """Measure, and print one row a contender."""
    torch.set_num_threads(1)
    contenders = {("plain loop", 1): plain()}
    for count in members:
        contenders["population", count] = population(count, compiled=False)
        contenders["population, compiled and donated", count] = population(count, compiled=True)
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
        print(f"{name:34} {count:4} members {micros} {seconds / first:6.3f} of the plain loop")


if __name__ == "__main__":
    main([int(one) for one in sys.argv[1:]] or [8, 64])
