"""Compiled steps of several micro-batches: how many graphs they are, and that nothing is lost."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
import torch.nn.functional as F
from compiling import CountingBackend, assert_close, mean_square
from models import CASES, Case
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import LossError

pytestmark = pytest.mark.row(50)


def batch(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, 6, generator=generator)
    return x, torch.randint(0, 3, (size,), generator=generator)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


class Largest:
    """A metric that is no tree: an object of a class of one's own."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def merge(self, other: Largest) -> Largest:
        return Largest(torch.maximum(self.value, other.value))

    def compute(self) -> Tensor:
        return self.value


@attrs.frozen(eq=False)
class First:
    """A metric that is a tree, and hands its tensor on as it is."""

    value: Tensor

    def merge(self, other: First) -> First:
        return self

    def compute(self) -> Tensor:
        return self.value


def classify(model: nn.Module, given: Any) -> ft.Loss:
    """Of the first class there are few: weights that no two micro-batches share."""
    x, y = given
    logits = model(x)
    weight = 1.0 + (y > 0).sum()
    accuracy = ft.metrics.Accuracy.of(logits, y)
    return ft.Loss(F.cross_entropy(logits, y), weight, {"accuracy": accuracy, "x": x.mean()})


def programs(loss: Any = classify, model: nn.Module | None = None, **options: Any) -> Any:
    """The same eager, and compiled with a backend that counts."""
    backend = CountingBackend()
    optimizer = options.pop("optimizer", ft.optim.AdamW(lr=1e-2))
    eager = ft.program(model or network(), loss, optimizer, **{"accumulate": 4, **options})
    return eager, ft.compiled(eager, backend=backend), backend


def steps(program: ft.Program, given: list[Any]) -> tuple[ft.TrainState, dict[str, Tensor]]:
    state, metrics = program.init(), {}
    for one in given:
        state, metrics = program.train_step(state, one)
    return state, metrics


def assert_same(eager: ft.Program, graphs: ft.Program, given: list[Any]) -> None:
    state, metrics = steps(graphs, given)
    expected, expected_metrics = steps(eager, given)
    assert_close(state, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(metrics, expected_metrics)
    assert tree.diff(state, steps(ft.donated(graphs), given)[0]) == []


def test_any_number_of_them_is_one_compilation() -> None:
    eager, graphs, backend = programs()
    whole, rest = [batch(6)] * 4, [batch(6)] * 2
    assert_same(eager, graphs, [whole, whole, rest, whole])
    assert backend.count == 1


def test_a_short_one_is_one_more() -> None:
    eager, graphs, backend = programs()
    assert_same(eager, graphs, [[batch(6)] * 4, [batch(6), batch(6), batch(3)]])
    assert backend.count == 2


@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_kind_of_model(case: Case) -> None:
    options = {"accumulate": 3, "clip_norm": 0.1, "ema": ft.EMA(0.9, every=2)}
    eager = case.program(ft.optim.AdamW(lr=1e-2, eps=1e-2), **options)
    given = [[case.batch(index, 4), case.batch(index + 9, 4)] for index in range(4)]
    assert_same(eager, ft.compiled(eager, backend="eager"), given)


def test_fp16_finds_its_scale() -> None:
    loss = lambda model, x: (model(x) * 1e2).square().mean()  # noqa: E731
    options = {"precision": "fp16", "accumulate": 2, "optimizer": ft.optim.SGD(lr=1e-9)}
    eager, graphs, _ = programs(loss, nn.Linear(4, 2), **options)
    state, _ = steps(graphs, [torch.ones(4, 4)] * 6)
    expected, _ = steps(eager, [torch.ones(4, 4)] * 6)
    assert state.counters.skipped.item() == expected.counters.skipped.item() > 0
    assert tree.diff(state.loss_scale, expected.loss_scale) == []


def test_parameters_that_only_some_of_them_use() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.unused = nn.Linear(6, 4), nn.Linear(2, 2)
            self.heads = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})

    def loss(model: Any, given: Any) -> Tensor:
        return model.heads[given["head"]](model.body(given["x"])).square().mean()

    torch.manual_seed(0)
    # A parameter without a gradient stays; a gradient of zero would decay it.
    optimizer = ft.optim.AdamW(lr=0.1, weight_decay=0.5)
    eager, graphs, _ = programs(loss, Heads(), optimizer=optimizer)
    a, b = ({"x": batch(3)[0], "head": head} for head in "ab")
    assert_same(eager, graphs, [[a, b], [a, a], [b, b, a, a]])
    before, after = graphs.init().params, steps(graphs, [[a, b]])[0].params
    assert tree.diff(before["unused.weight"], after["unused.weight"]) == []


def test_each_draws_random_numbers_of_its_own() -> None:
    def loss(model: nn.Module, x: Tensor) -> ft.Loss:
        drawn = torch.rand(())
        return ft.Loss(model(x).square().mean(), metrics={"drawn": drawn, "square": drawn**2})

    _, graphs, _ = programs(loss, accumulate=2)
    _, metrics = steps(graphs, [torch.ones(4, 6)])
    assert metrics["square"] > metrics["drawn"] ** 2 + 1e-6  # they vary, so they are two


def test_a_model_that_writes_to_its_input_leaves_the_batch() -> None:
    eager, graphs, _ = programs(mean_square, nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 1)))
    x = batch(8)[0]
    before = x.clone()
    assert_same(eager, graphs, [x])
    assert torch.equal(x, before)


def test_metrics_of_any_class_make_it_one_graph() -> None:
    def loss(model: nn.Module, x: Tensor) -> ft.Loss:
        return ft.Loss(model(x).square().mean(), metrics={"largest": Largest(x.max())})

    eager, graphs, backend = programs(loss)
    assert_same(eager, graphs, [torch.randn(8, 6)] * 2)
    assert backend.count == 1


def test_a_metric_that_is_a_parameter_is_what_it_was() -> None:
    def loss(model: Any, x: Tensor) -> ft.Loss:
        return ft.Loss(model(x).square().mean(), metrics={"bias": First(model.bias.detach()[0])})

    _, graphs, backend = programs(loss, nn.Linear(6, 1))
    state = graphs.init()
    before = state.params["bias"].item()
    state, metrics = ft.donated(graphs).train_step(state, torch.randn(8, 6))
    assert backend.count == 1
    assert metrics["bias"].item() == before != state.params["bias"].item()


def test_what_fails_before_the_update_leaves_a_donated_state() -> None:
    def loss(model: Any, given: dict[str, Tensor]) -> ft.Loss:
        value = model(given["x"]).square().mean()
        return ft.Loss(value, metrics={f"of {len(given['x'])}": 1.0})

    _, graphs, _ = programs(loss)
    donating, state = ft.donated(graphs), graphs.init()
    with pytest.raises(LossError, match="same metrics"):
        donating.train_step(state, [{"x": batch(2)[0]}, {"x": batch(3)[0]}])
    assert tree.diff(state, graphs.init()) == []
