"""Small populations, and their members trained alone."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain.populations.program import Population

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.arange(12) % 3


# Rows are of multiples of 16 bytes, for which populations promise the same bytes.


def net() -> nn.Module:
    # Without a bias, whose gradient would be rounding only, which Adam makes large.
    layers = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.2)
    return nn.Sequential(*layers, nn.Linear(8, 4)).double()


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    x, y = batch
    logits = model(x)
    accuracy = ft.metrics.Accuracy.of(logits, y)
    return ft.Loss(F.cross_entropy(logits, y), len(y), {"accuracy": accuracy})


def program(optimizer: Any = None, model: Any = net, **options: Any) -> ft.Program:
    return ft.program(model, loss, optimizer or ft.optim.AdamW(0.01), **options)


def batch(number: int, members: int | None = None) -> Any:
    """Return the batch of a step: shared, or one for each of several members."""
    if members is None:
        return X.roll(number, 0), Y.roll(number, 0)
    each = [batch(number + 5 * member) for member in range(members)]
    return torch.stack([x for x, _ in each]), torch.stack([y for _, y in each])


def trained(pop: Population, steps: int, state: Any = None) -> tuple[ft.TrainState, Any]:
    """Train a population; return its state and the metrics of each step."""
    state = pop.init() if state is None else state
    rows = []
    for _ in range(steps):
        members = len(pop) if pop.batches == "own" else None
        state, metrics = pop.train_step(state, batch(state.counters.step, members))
        rows.append(metrics)
    return state, rows


def alone(pop: Population, member: int, steps: int) -> tuple[ft.TrainState, Any]:
    """Train the program of one member by itself."""
    own, rows = pop.programs[member], []
    state = own.init(pop.seeds[member])
    for number in range(steps):
        given = batch(number + 5 * member) if pop.batches == "own" else batch(number)
        state, metrics = own.train_step(state, given)
        rows.append(metrics)
    return state, rows


def require_close(expected: Any, found: Any, rtol: float = 1e-9) -> None:
    """Require two states to have the same structure and nearly the same numbers."""
    mine, theirs = (
        {ft.tree.path_string(path): leaf for path, leaf in ft.tree.items(one)}
        for one in (expected, found)
    )
    assert mine.keys() == theirs.keys()
    for path, leaf in mine.items():
        if isinstance(leaf, Tensor):
            torch.testing.assert_close(theirs[path], leaf, rtol=rtol, atol=1e-12, msg=path)
        elif isinstance(leaf, float):
            assert math.isclose(leaf, theirs[path], rel_tol=rtol), path
        else:
            assert leaf == theirs[path], path
