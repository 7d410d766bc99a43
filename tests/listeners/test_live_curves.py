"""Curves in a notebook: few updates, few transfers, and nothing elsewhere."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from small_runs import fit, program

import functrain as ft
from functrain import errors
from functrain.listeners import LiveCurves, live_curves
from functrain.training import events

Shown = list[tuple[str, str]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Collect what a notebook would show, as text and as HTML."""
    found: Shown = []

    class Place:
        def show(self, text: str, html: str) -> None:
            found.append((text, html))

    monkeypatch.setattr(live_curves, "in_notebook", lambda: True)
    monkeypatch.setattr(live_curves, "NotebookDisplay", Place)
    return found


def step(state: ft.TrainState, number: int, **metrics: float) -> events.BatchEnd:
    counters = attrs.evolve(state.counters, step=number)
    tensors = {name: torch.tensor(value) for name, value in metrics.items()}
    return events.BatchEnd(attrs.evolve(state, counters=counters), tensors)


def begun(now: list[float], *names: str) -> tuple[LiveCurves, ft.TrainState]:
    live, state = LiveCurves(names or ("loss",), clock=lambda: now[0]), program().init()
    live.on_train_begin(events.TrainBegin(state, 100, None, None))
    return live, state


@pytest.mark.row(42)
class TestInANotebook:
    def test_it_draws_at_most_twice_a_second(self, shown: Shown) -> None:
        now = [0.0]
        live, state = begun(now)
        for number in range(1, 301):
            now[0] = number / 100
            live.on_batch_end(step(state, number, loss=1 / number))
        assert 5 <= len(shown) <= 6
        live.close()
        assert shown[-1][0] == "loss 0.003333 at step 300"

    def test_drawing_a_long_run_takes_at_most_a_twentieth_of_the_time(
        self, shown: Shown, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [0.0]
        draw = live_curves.titled

        def slow(found: Any) -> Any:
            now[0] += 0.2
            return draw(found)

        monkeypatch.setattr(live_curves, "titled", slow)
        live, state = begun(now)
        for number in range(1, 101):
            now[0] += 0.1
            live.on_batch_end(step(state, number, loss=1.0))
        assert len(shown) == 3

    def test_all_metrics_are_fetched_when_it_draws(
        self, shown: Shown, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched: list[int] = []
        fetch = live_curves.fetch
        monkeypatch.setattr(
            live_curves, "fetch", lambda rows: fetched.append(len(rows)) or fetch(rows)
        )
        now = [0.0]
        live, state = begun(now)
        for number in range(1, 8):
            now[0] += 0.2
            live.on_batch_end(step(state, number, loss=1.0))
        live.close()
        assert fetched == [3, 3, 1]

    def test_evaluations_are_drawn_with_their_metric(self, shown: Shown) -> None:
        run = fit([LiveCurves(("loss", "error"))])
        text, html = shown[-1]
        assert html.count("<svg") == 2
        for name in ("eval/loss", "eval/ema/loss", "eval/error"):
            assert f"{name} {run.history[name][-1]:.4g} at step" in text
            assert f">{name}</text>" in html

    def test_losses_that_are_not_finite_are_marked(self, shown: Shown) -> None:
        live, state = begun([0.0])
        for number, value in enumerate((1.0, math.nan, math.inf), 1):
            live.on_batch_end(step(state, number, loss=value))
        live.close()
        assert "loss is nan at 2" in shown[-1][1]
        assert "loss is inf at 3" in shown[-1][1]

    def test_a_failed_run_leaves_its_curve(self, shown: Shown) -> None:
        class Failing:
            def on_batch_end(self, event: events.BatchEnd) -> None:
                if event.state.counters.step == 3:
                    raise RuntimeError("here")

        with pytest.raises(errors.ListenerError, match="here"):
            fit([LiveCurves(), Failing()])
        assert "at step 3" in shown[-1][0]

    def test_it_does_not_change_training(self, shown: Shown) -> None:
        assert ft.tree.diff(fit([LiveCurves()]).state, fit().state) == []
        assert shown

    def test_an_unknown_metric_shows_nothing(self, shown: Shown) -> None:
        fit([LiveCurves("no_such")])
        assert shown == []


def test_it_does_nothing_outside_of_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    live = LiveCurves()
    fit([live])
    assert capsys.readouterr().out == ""
    assert live._pending == []


def test_at_least_one_metric_is_needed() -> None:
    with pytest.raises(errors.ConfigurationError, match="LiveCurves"):
        LiveCurves(())
