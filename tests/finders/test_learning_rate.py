"""The learning-rate range test."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain import tree
from functrain.errors import ConfigurationError, FinderError
from functrain.finders import LearningRateCurve, find_lr
from functrain.finders.learning_rate import smoothed

X = torch.linspace(-1, 1, 64).reshape(-1, 1)
Y = 3 * X


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def program(optimizer: Any = None, **options: Any) -> ft.Program:
    optimizer = optimizer or ft.optim.SGD(lr=1.0)
    return ft.program(lambda: nn.Linear(1, 1), loss, optimizer, **options)


def test_state_generators_and_loader_are_unchanged() -> None:
    made = program(ft.optim.AdamW(lr=ft.schedules.WarmupCosine(1e-3, warmup_steps=1)), ema=0.9)
    loader = DataLoader(
        TensorDataset(X, Y), 16, shuffle=True, generator=torch.Generator().manual_seed(3)
    )
    state = made.init()
    for state, _ in ft.iterate(made, state, loader, until="2 steps"):
        pass
    kept, drawn, own = ft.copy(state), torch.get_rng_state(), loader.generator.get_state()
    find_lr(made, state, loader, steps=20)
    assert tree.diff(state, kept) == []
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(loader.generator.get_state(), own)


def test_a_donated_program_does_not_consume_the_state() -> None:
    made = ft.donated(program())
    state = made.init()
    kept = ft.copy(state)
    find_lr(made, state, [(X, Y)], steps=10)
    assert tree.diff(state, kept) == []


def test_steps_match_plain_pytorch_at_the_same_rates() -> None:
    made, plain = program(), nn.Linear(1, 1)
    state = made.init(seed=2)
    plain.load_state_dict(state.params)
    curve = find_lr(made, state, [(X, Y)], low=1e-3, high=0.1, steps=12)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)
    for step, rate in enumerate(curve.rates):
        assert rate == pytest.approx(1e-3 * 100 ** (step / 11))
        optimizer.param_groups[0]["lr"] = rate
        value = loss(plain, (X, Y))
        assert curve.raw[step] == pytest.approx(value.item(), rel=1e-5)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def test_the_mean_matches_fastai() -> None:
    """As fastai.callback.core.AvgSmoothLoss: lerp towards the mean by beta, then unbias."""
    value, losses = torch.tensor(0.0), [3.0, 1.0, 2.0, 5.0]
    for count, each in enumerate(losses, 1):
        value = torch.lerp(torch.tensor(each), value, 0.98)
        expected = (value / (1 - 0.98**count)).item()
        assert smoothed(losses[:count]) == pytest.approx(expected, rel=1e-5)


def test_the_suggestion_is_at_the_steepest_descent_of_the_mean() -> None:
    """As fastai.callback.schedule.steep, on the values that its lr_find passes."""
    curve = find_lr(program(), program().init(seed=1), [(X, Y)])
    rates, losses = torch.tensor(curve.rates), torch.tensor(curve.losses)
    kept = slice(len(rates) // 10, -5)
    slopes = losses[kept].diff() / rates[kept].log().diff()
    assert curve.suggestion == pytest.approx(rates[kept][slopes.argmin()].item())
    assert 0.01 < curve.suggestion < 3


def test_the_suggestion_trains_and_a_diverging_rate_does_not() -> None:
    curve = find_lr(program(), program().init(seed=1), [(X, Y)])
    assert curve.diverged
    ends = {}
    for rate in (curve.suggestion, curve.rates[-1]):
        made = program(ft.optim.SGD(lr=rate), nonfinite="ignore")
        run = ft.fit(made, [(X, Y)], until="40 steps")
        ends[rate] = run.history["loss"][-1]
    assert ends[curve.suggestion] < 0.1
    assert not ends[curve.rates[-1]] < 1e3


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "ignore"])
def test_a_nonfinite_loss_ends_the_search(nonfinite: str) -> None:
    def exploding(model: nn.Module, batch: Any) -> torch.Tensor:
        off = loss(model, batch)
        return off * torch.where(off.detach() > 20, math.nan, 1.0)

    made = ft.program(lambda: nn.Linear(1, 1), exploding, ft.optim.SGD(lr=1.0), nonfinite=nonfinite)
    curve = find_lr(made, made.init(), [(X, Y)], high=100.0)
    assert curve.diverged
    assert all(map(math.isfinite, curve.raw))
    assert len(curve.rates) == len(curve.losses) == len(curve.raw) < 100


def test_a_negative_loss_does_not_end_the_search() -> None:
    made = ft.program(
        lambda: nn.Linear(1, 1), lambda m, b: loss(m, b) - 100.0, ft.optim.SGD(lr=1.0)
    )
    assert len(find_lr(made, made.init(), [(X, Y)], high=0.1, steps=30).rates) == 30


def test_all_groups_use_the_rate_of_the_search() -> None:
    sgd = ft.optim.SGD
    groups = ft.optim.groups([("bias", sgd(lr=ft.schedules.Cosine(0.5))), ("*", sgd(lr=0.1))])
    one, two = program(), program(groups)
    curves = [find_lr(made, made.init(), [(X, Y)], steps=20) for made in (one, two)]
    assert curves[0] == curves[1]


def test_mistakes_and_failed_searches_are_errors() -> None:
    state = program().init()
    for options in ({"low": 0.0}, {"low": 2.0, "high": 1.0}, {"steps": 1}, {"high": math.inf}):
        with pytest.raises(ConfigurationError, match="0 < low < high"):
            find_lr(program(), state, [(X, Y)], **options)
    with pytest.raises(FinderError, match="too few"):
        _ = find_lr(program(), state, [(X, Y)], steps=6).suggestion
    with pytest.raises(FinderError, match="fell at no rate"):
        _ = LearningRateCurve([10.0**n for n in range(20)], [*range(20)], [], False).suggestion
    nowhere = ft.program(
        lambda: nn.Linear(1, 1), lambda m, b: loss(m, b) * math.nan, ft.optim.SGD(1.0)
    )
    with pytest.raises(FinderError, match="not finite at the first step"):
        find_lr(nowhere, nowhere.init(), [(X, Y)])


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curve = find_lr(program(), program().init(), [(X, Y)])
    figure = curve.plot(tmp_path / "curve.png")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert list(axes.lines[1].get_ydata()) == curve.losses
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_a_notebook_shows_the_curve_and_a_terminal_the_suggestion() -> None:
    pytest.importorskip("matplotlib")
    curve = find_lr(program(), program().init(), [(X, Y)])
    data, size = curve._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size["width"] > size["height"]
    assert f"suggestion {curve.suggestion:.3g}" in repr(curve)
    rising = LearningRateCurve([10.0**n for n in range(20)], [*range(20)], [], False)
    assert "no suggestion: the loss fell at no rate" in repr(rising)
