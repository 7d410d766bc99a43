"""Charts of a population: the best member, and quartiles of all."""

from __future__ import annotations

import math

import pytest

import functrain as ft
from functrain.plotting.chart import chart_of
from functrain.plotting.columns import Columns

ROWS = [
    {"step": 1, "loss": [4.0, 1.0, 2.0, 3.0, 5.0], "lr": [0.1, 0.2, 0.3, 0.4, 0.5]},
    {"step": 2, "loss": [4.0, None, math.nan, 3.0, 5.0], "lr": [0.1, None, 0.3, 0.4, 0.5]},
    {"step": 3, "loss": [None, None, None, math.inf, None], "lr": [None, None, None, 0.4, None]},
]


def test_columns_are_the_best_member_and_the_quartiles() -> None:
    columns = Columns.of(ROWS)
    assert columns.members == 5
    assert list(columns.values["loss"])[:2] == [1.0, 3.0]
    assert [list(side)[:2] for side in columns.bands["loss"]] == [[2.0, 3.5], [4.0, 4.5]]
    assert math.isnan(columns.values["loss"][2])
    assert list(columns.values["lr"]) == pytest.approx([0.3, 0.35, 0.4])


def test_a_panel_says_what_it_shows() -> None:
    titles = [panel.title for panel in chart_of({"": Columns.of(ROWS)}).panels]
    assert titles == [
        "loss: best of 5 members, and quartiles",
        "learning rate: median of 5 members, and quartiles",
    ]


def test_a_figure_has_a_band() -> None:
    pytest.importorskip("matplotlib")
    figure = ft.History(ROWS).plot("loss")
    (band,) = figure.axes[0].collections
    low, high = band.get_datalim(figure.axes[0].transData).intervaly
    assert (low, high) == (2.0, 4.5)
    assert not ft.History(ROWS).member(3).plot("loss").axes[0].collections
