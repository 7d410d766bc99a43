"""A run in a notebook."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pages import Page, in_notebook
from torch import nn

import functrain as ft

pytestmark = pytest.mark.row(42)


def loss(model: nn.Module, x: torch.Tensor) -> ft.Loss:
    value = model(x).square().mean()
    return ft.Loss(value, metrics={f"m{k}": value for k in range(METRICS)})


METRICS = 1


def fitted(**options: Any) -> ft.Run:
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.AdamW(lr=0.1))
    data = [torch.ones(4, 2)] * 3
    return ft.fit(program, data, **{"until": "4 epochs", "eval_data": data, **options})


def test_a_run_shows_how_it_ended_and_all_metrics(tmp_path: Any) -> None:
    run = fitted(directory=tmp_path / "a<b")
    html = in_notebook(run)
    page = Page(html)
    assert "max_epochs: reached 4 epochs" in page.text
    assert page.row("steps, epochs, samples") == ["steps, epochs, samples", "12, 4, 48"]
    assert page.row("best")[1].endswith(f"at step {run.best['step']}")
    assert page.row("directory")[1].endswith("a<b")
    # Loss and metric with their evaluations, rate and norm: four charts.
    assert html.count("<svg") == 4
    assert html.index("eval/loss") < html.index("eval/m0") < html.index("grad_norm")
    assert "History: 12 steps" in page.text
    assert page.is_self_contained()


def test_metrics_beyond_six_panels_are_only_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.METRICS", 9)
    html = in_notebook(fitted())
    assert html.count("<svg") == 6
    assert "not drawn: m5, m6, m7, m8, learning rate, gradient norm" in Page(html).text


def test_a_learning_rate_is_not_smoothed() -> None:
    rows = [{"step": k, "loss": 1.0 + k % 7, "lr": float(k == 50)} for k in range(1, 100)]
    run = ft.Run(fitted().state, ft.History(rows), "", "", None, {"value": None}, 1.0)
    html = in_notebook(run)
    loss_chart, lr_chart = html.split("<svg")[1:]
    # Noise is drawn faintly, behind its mean.
    assert "stroke-opacity: 0.3;" in loss_chart
    assert "stroke-opacity: 0.3;" not in lr_chart


def test_a_run_without_a_step_has_no_curves() -> None:
    run = fitted(until="1 epochs", eval_data=None)
    again = ft.Run(run.state, ft.History([]), "interrupted", "at once", None, run.best, 0.0)
    page = Page(in_notebook(again))
    assert "interrupted: at once" in page.text
    assert "svg" not in page.tags
    assert "no steps" in page.text


def test_a_loss_that_is_not_finite_is_marked() -> None:
    rows = [{"step": k, "loss": float("nan") if k == 2 else 1.0 / k} for k in (1, 2, 3)]
    run = fitted()
    html = in_notebook(ft.Run(run.state, ft.History(rows), "nonfinite", "", None, run.best, 1.0))
    assert "loss is nan at 2" in html
