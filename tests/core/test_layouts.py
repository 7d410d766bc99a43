"""Layouts that passed a check are known again, and any other layout is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.core import optimizer
from functrain.core.optimizer import KnownLayouts


def tensors() -> list[Any]:
    return [torch.zeros(2, 3), torch.zeros(3)]


class Check:
    """A check that counts how often it was asked."""

    def __init__(self, answer: bool = True) -> None:
        self.answer, self.calls = answer, 0

    def __call__(self) -> bool:
        self.calls += 1
        return self.answer


def test_the_same_layouts_are_checked_once() -> None:
    known, check = KnownLayouts(), Check()
    assert all(known.passes(tensors(), check) for _ in range(3))
    assert check.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        lambda one: one.double(),
        lambda one: one.t().contiguous().t(),
        lambda one: one[:1],
        lambda one: one.view(3, 2),
        lambda one: one.to_sparse(),
        lambda one: one.to("meta"),
        lambda one: nn.Parameter(one),
        lambda one: one.expand(2, 2, 3),
        lambda one: None,
    ],
)
def test_other_layouts_are_checked(other: Callable[[Tensor], Any]) -> None:
    known, refused = KnownLayouts(), Check(answer=False)
    assert known.passes(tensors(), Check())
    matrix, vector = tensors()
    assert not known.passes([other(matrix), vector], refused)
    assert not known.passes([matrix], refused)
    assert not known.passes([matrix, vector, vector], refused)
    assert refused.calls == 3


def test_layouts_that_were_refused_are_not_known() -> None:
    known = KnownLayouts()
    assert not known.passes(tensors(), Check(answer=False))
    assert not known.passes(tensors(), Check(answer=False))


def test_a_transposed_layout_is_seen_also_where_it_was_written_into_the_same_tensor() -> None:
    known, given = KnownLayouts(), tensors()
    assert known.passes(given, Check())
    given[0].data = given[0].t().contiguous().t()
    assert not known.passes(given, Check(answer=False))


def test_no_tensor_is_kept() -> None:
    known, given = KnownLayouts(), tensors()
    before = given[0].untyped_storage()._cdata, torch._C._storage_Use_Count  # type: ignore[attr-defined]
    count = before[1](before[0])
    known.passes(given, Check())
    assert before[1](before[0]) == count


def test_without_guards_every_step_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "_guards_compare", lambda: False)
    known, check = KnownLayouts(), Check()
    assert all(known.passes(tensors(), check) for _ in range(3))
    assert check.calls == 3


def test_layouts_that_change_all_the_time_are_no_longer_remembered() -> None:
    known = KnownLayouts()
    for size in range(1, 50):
        assert known.passes([torch.zeros(size)], Check())
        assert not known.passes([torch.zeros(size, size)], Check(answer=False))


def test_steps_know_their_tensors_after_the_first() -> None:
    program = ft.donated(
        ft.program(nn.Linear(3, 2), lambda m, x: m(x).square().mean(), ft.optim.AdamW(lr=0.1))
    )
    state = program.init()
    for _ in range(3):
        state, _ = program.train_step(state, torch.ones(4, 3))
    memory = program.fixed.model.layouts
    assert memory.gradients._changes == memory.updated._changes == 1
