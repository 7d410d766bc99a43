"""Curves are drawn from any history, short and strange ones too."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from functrain.history import History
from functrain.plotting import curves, smoothed

ROW = {"loss": 1.0, "lr": 0.1, "grad_norm": 2.0}


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 1, **ROW}],
        [{"step": s, **ROW, "loss": 1 / s} for s in range(1, 100)],
        [{"step": 1, **ROW}, {"step": 2, **ROW, "loss": math.nan, "grad_norm": math.inf}],
        [{"step": 1, **ROW, "loss": -3.0, "eval/loss": -2.0, "eval/accuracy": 0.5}],
        [{"step": 1, **ROW, "grad_norm": 0.0}],
    ],
)
def test_a_picture_is_written(rows: list[dict[str, float]], tmp_path: Path) -> None:
    figure = curves(History(rows), tmp_path / "curves.png", title="a run")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["loss", "evaluation", "learning rate", "gradient norm"]
    steps = figure.axes[0].lines[0].get_xdata()
    assert list(steps) == [row["step"] for row in rows]


def test_smoothing_passes_over_what_is_not_finite() -> None:
    values = [1.0, math.nan, 3.0, math.inf, math.nan, math.nan]
    means = smoothed(values, share=0.34)
    assert means[:4] == [1.0, 2.0, 3.0, 3.0]
    assert all(math.isnan(mean) for mean in means[4:])
