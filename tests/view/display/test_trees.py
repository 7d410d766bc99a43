"""A state in a notebook: complete, escaped, and quick to show."""

from __future__ import annotations

import math

import attrs
import pytest
import torch
from models import classify, convnet
from pages import Page

import functrain as ft
from functrain.tree import flatten
from functrain.view.display.trees import html


@pytest.fixture
def state() -> ft.TrainState:
    program = ft.program(convnet(), classify, ft.optim.AdamW(lr=0.1), ema=0.9, precision="fp16")
    return program.init(seed=5)


def shown(state: ft.TrainState) -> Page:
    text = state._repr_html_()
    assert text is not None
    return Page(text)


@pytest.mark.row(2)
class TestState:
    def test_every_leaf_is_there_with_dtype_shape_size_and_values(
        self, state: ft.TrainState
    ) -> None:
        page = shown(state)
        assert page.is_self_contained()
        empty = [row for row in page.rows if row[1] == "empty"]
        assert len(page.rows) - len(empty) == len(flatten(state))
        name, form, size, _, values = page.rows[0]
        assert (name, form, size) == ("1.weight", "f32[4,1,3,3]", "144.0 B")
        assert "\N{HORIZONTAL ELLIPSIS}" in values
        assert "svg" in page.tags

    def test_what_is_not_finite_stands_out(self, state: ft.TrainState) -> None:
        weight = state.params["1.weight"].clone()
        weight[0, 0, 0, :2] = torch.tensor([math.nan, math.inf])
        sick = attrs.evolve(state, params={**state.params, "1.weight": weight})
        assert shown(sick).rows[0][-1].endswith("1 NaN, 1 Inf")

    def test_a_tensor_of_equal_values_says_so(self) -> None:
        page = Page(html({"zero": torch.zeros(3), "bad": torch.tensor([1.0, math.nan])}, "t"))
        assert page.row("zero")[3] == "all 0"
        assert page.row("bad")[3:] == ["else 1", "1 NaN"]

    def test_a_state_that_a_donated_step_took_leaves_it_to_its_repr(self) -> None:
        program = ft.donated(ft.program(torch.nn.Linear(2, 1), square, ft.optim.SGD(lr=0.1)))
        state = program.init()
        program.train_step(state, torch.ones(3, 2))
        assert state._repr_html_() is None


def square(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


def test_names_from_outside_are_text() -> None:
    evil = '<script>alert("x")</script>'
    page = Page(html({evil: torch.ones(2), "s": evil, "n": {evil: {}}}, evil))
    assert "script" not in page.tags
    assert page.text.count(evil) >= 3


def test_of_many_children_the_first_are_shown_and_the_rest_counted() -> None:
    page = Page(html({str(n): torch.ones(1) for n in range(250)}, "many"))
    assert len(page.rows) == 100
    assert page.text.endswith("... 150 more")


def test_a_state_of_a_thousand_tensors_is_a_page_that_opens() -> None:
    tree = {str(n): {str(m): torch.randn(40, 40) for m in range(20)} for n in range(50)}
    assert len(html(tree, "large")) < 2_000_000


def test_nothing_is_computed_before_it_is_shown(
    state: ft.TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a histogram was computed")

    monkeypatch.setattr("functrain.view.display.trees.spreads", never)
    repr(state)
    with pytest.raises(AssertionError, match="histogram"):
        state._repr_html_()
