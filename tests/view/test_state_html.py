"""States and trees in a notebook: complete, escaped, and quick to show."""

from __future__ import annotations

import math

import attrs
import pytest
import torch
from models import classify, convnet
from pages import Page, in_notebook

import functrain as ft
from functrain.tree import flatten
from functrain.view import html
from functrain.view.state_html import tree_html


@pytest.fixture
def state() -> ft.TrainState:
    program = ft.program(convnet(), classify, ft.optim.AdamW(lr=0.1), ema=0.9, precision="fp16")
    return program.init(seed=5)


def shown(state: ft.TrainState) -> Page:
    return Page(in_notebook(state))


@pytest.mark.row(2)
class TestState:
    def test_every_leaf_has_dtype_shape_size_and_values(self, state: ft.TrainState) -> None:
        page = shown(state)
        assert page.is_self_contained()
        empty = [row for row in page.rows if row[1] == "empty"]
        assert len(page.rows) - len(empty) == len(flatten(state))
        name, form, size, _, values = page.rows[0]
        assert (name, form, size) == ("1.weight", "f32[4,1,3,3]", "144 B")
        assert "\N{HORIZONTAL ELLIPSIS}" in values
        assert "svg" in page.tags

    def test_values_that_are_not_finite_stand_out(self, state: ft.TrainState) -> None:
        weight = state.params["1.weight"].clone()
        weight[0, 0, 0, :2] = torch.tensor([math.nan, math.inf])
        sick = attrs.evolve(state, params={**state.params, "1.weight": weight})
        assert shown(sick).rows[0][-1].endswith("1 NaN, 1 Inf")

    def test_a_tensor_of_equal_values_says_so(self) -> None:
        page = Page(tree_html({"zero": torch.zeros(3), "bad": torch.tensor([1.0, math.nan])}, "t"))
        assert page.row("zero")[3] == "all 0"
        assert page.row("bad")[3:] == ["else 1", "1 NaN"]

    def test_a_donated_state_has_only_its_repr(self) -> None:
        program = ft.donated(ft.program(torch.nn.Linear(2, 1), square, ft.optim.SGD(lr=0.1)))
        state = program.init()
        program.train_step(state, torch.ones(3, 2))
        assert html(state) is None


def square(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


def test_names_are_never_markup() -> None:
    evil = '<script>alert("x")</script>'
    page = Page(tree_html({evil: torch.ones(2), "s": evil, "n": {evil: {}}}, evil))
    assert "script" not in page.tags
    assert page.text.count(evil) >= 3


def test_many_children_are_cut_and_the_rest_counted() -> None:
    page = Page(tree_html({str(n): torch.ones(1) for n in range(250)}, "many"))
    assert len(page.rows) == 100
    assert page.text.endswith("... 150 more")


def test_the_html_of_a_thousand_tensors_is_below_two_megabytes() -> None:
    tree = {str(n): {str(m): torch.randn(40, 40) for m in range(20)} for n in range(50)}
    assert len(tree_html(tree, "large")) < 2_000_000


def test_a_repr_computes_no_histogram(
    state: ft.TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a histogram was computed")

    monkeypatch.setattr("functrain.view.state_html.value_summaries", never)
    repr(state)
    with pytest.raises(AssertionError, match="histogram"):
        in_notebook(state)
