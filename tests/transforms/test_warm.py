"""``warm`` compiles a step without making it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiling import CountingBackend, mean_square
from torch import Tensor, nn

import functrain as ft
from functrain.errors import CaptureError, UnsupportedError


def plain(loss: Any = mean_square) -> ft.Program:
    return ft.program(nn.Linear(3, 2), loss, ft.optim.SGD(lr=0.1))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("donates", [False, True])
def test_the_step_after_it_compiles_nothing(accumulate: int, donates: bool) -> None:
    backend = CountingBackend()
    options = {"accumulate": accumulate, "ema": 0.9}
    eager = ft.program(nn.Linear(3, 2), mean_square, ft.optim.AdamW(lr=0.1), **options)
    program = ft.compiled(eager, backend=backend)
    program = ft.donated(program) if donates else program
    state, batch = program.init(), torch.ones(4, 3)
    before = ft.copy(state)
    program.warm(state, batch)
    count = backend.count
    assert count > 0
    assert ft.tree.equal(before, state)
    warmed, metrics = program.train_step(state, batch)
    assert backend.count == count
    expected, also = ft.compiled(eager, backend="eager").train_step(before, batch)
    assert ft.tree.equal(warmed, expected)
    assert ft.tree.equal(dict(metrics), dict(also))


def test_weights_that_a_step_would_copy_first() -> None:
    backend = CountingBackend()
    program = ft.compiled(
        ft.program(nn.Linear(3, 2), mean_square, ft.optim.SGD(lr=0.1)), backend=backend
    )
    weight = torch.ones(1, 3).expand(2, 3)
    state = program.init(params={"weight": weight, "bias": torch.zeros(2)})
    batch = torch.ones(4, 3)
    program.warm(state, batch)
    program.train_step(state, batch)
    assert backend.count == 1


def test_an_eager_program_has_nothing_to_compile() -> None:
    program = plain()
    state = program.init()
    program.warm(state, torch.ones(4, 3))
    assert ft.tree.equal(state, program.init())
    assert state.counters.step == 0


def test_a_batch_without_samples_and_arguments_in_another_order() -> None:
    backend = CountingBackend()
    program = ft.compiled(
        ft.program(nn.Linear(3, 2), mean_square, ft.optim.SGD(lr=0.1)), backend=backend
    )
    state = program.init()
    program.warm(state, torch.ones(0, 3))
    assert backend.count == 0
    with pytest.raises(UnsupportedError, match="the state comes first"):
        program.warm(torch.ones(4, 3), state)  # type: ignore[arg-type]


def test_a_step_that_is_no_graph_is_refused_as_it_would_be() -> None:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        value = model(batch).square().mean()
        return value if value.item() > 0 else -value

    program = ft.compiled(plain(loss), backend="eager")
    with pytest.raises(CaptureError, match=r"value\.item\(\)"):
        program.warm(program.init(), torch.ones(4, 3))
