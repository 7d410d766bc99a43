"""The functions that a program accepts as its loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import ConfigurationError


class Focal(nn.Module):
    """As packages of losses write them."""

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        return (y_pred - y_true).square().mean()


class OfModelAndBatch(nn.Module):
    def forward(self, net: nn.Module, inputs: Tensor) -> Tensor:
        return net(inputs).square().mean()


CRITERIA = [
    (nn.CrossEntropyLoss(), "CrossEntropyLoss takes"),
    (nn.MSELoss(), "MSELoss takes"),
    (nn.CrossEntropyLoss, "CrossEntropyLoss takes (input, target)"),
    (nn.CTCLoss(), "CTCLoss takes (log_probs, targets, ...)"),
    (nn.PoissonNLLLoss(), "PoissonNLLLoss takes (log_input, target)"),
    (nn.TripletMarginLoss(), "TripletMarginLoss takes (anchor, positive, ...)"),
    (F.cross_entropy, "cross_entropy takes"),
    (functools.partial(F.cross_entropy, label_smoothing=0.1), "cross_entropy takes"),
    (Focal(), "Focal takes (y_pred, y_true)"),
    (lambda logits, target: (logits - target).mean(), "takes (logits, target)"),
]


class TestCriteria:
    @pytest.mark.parametrize(("criterion", "message"), CRITERIA)
    def test_are_refused_with_the_form_of_a_loss(
        self, criterion: Callable[..., Any], message: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            ft.program(nn.Linear(2, 1), criterion, ft.optim.SGD(lr=0.1))
        assert message in str(caught.value)
        assert "def loss(model, batch)" in str(caught.value)

    def test_are_refused_for_evaluation_too(self) -> None:
        loss = OfModelAndBatch()
        with pytest.raises(ConfigurationError, match="MSELoss takes"):
            ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), evaluate=nn.MSELoss())


def test_no_loss_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="loss: expected a function"):
        ft.program(nn.Linear(2, 1), None, ft.optim.SGD(lr=0.1))  # type: ignore[arg-type]


def test_a_module_of_model_and_batch_is_a_loss() -> None:
    program = ft.program(nn.Linear(2, 1), OfModelAndBatch(), ft.optim.SGD(lr=0.1))
    _, metrics = program.train_step(program.init(), torch.ones(3, 2))
    assert metrics["loss"].isfinite()


@pytest.mark.parametrize("weight", [-1, float("nan"), torch.ones(2)], ids=["below 0", "NaN", "two"])
def test_a_weight_that_weighs_nothing_is_refused(weight: Any) -> None:
    def weighted(model: nn.Module, x: Tensor) -> ft.Loss:
        return ft.Loss(model(x).square().mean(), weight=weight)

    made = ft.program(nn.Linear(2, 1), weighted, ft.optim.SGD(lr=0.1))
    said = r"a number >= 0 or a scalar tensor as weight, got (-1|nan|shape \[2\])"
    for use in (made.train_step, made.eval_step):
        with pytest.raises(ft.errors.LossError, match=said):
            use(made.init(), torch.ones(3, 2))


def by_sign(model: nn.Module, x: Tensor) -> ft.Loss:
    """Weigh a batch by a tensor of the sign of its values."""
    return ft.Loss(model(x).square().mean(), weight=x.sum().sign())


SIGNED = [torch.ones(3, 2), -torch.ones(3, 2)]
WAYS: dict[str, Callable[[ft.Program], Any]] = {
    "eager": lambda made: made,
    "donated": ft.donated,
    "compiled": lambda made: ft.compiled(made, backend="eager"),
}


class TestATensorBelowZeroAsWeight:
    @pytest.mark.parametrize("way", WAYS)
    def test_is_an_error_of_a_step_of_several_batches(self, way: str) -> None:
        made = WAYS[way](ft.program(nn.Linear(2, 1), by_sign, ft.optim.SGD(lr=0.1), accumulate=2))
        state = made.init()
        with pytest.raises(ft.errors.LossError, match="weight of a micro-batch is below 0"):
            made.train_step(state, ft.MicroBatches(SIGNED))
        state, metrics = made.train_step(state, ft.MicroBatches([SIGNED[0], SIGNED[0]]))
        assert metrics["loss"].isfinite()

    @pytest.mark.parametrize("way", WAYS)
    def test_is_skipped_without_a_look_by_that_policy(self, way: str) -> None:
        options: Any = {"accumulate": 2, "nonfinite": "skip"}
        made = WAYS[way](ft.program(nn.Linear(2, 1), by_sign, ft.optim.SGD(lr=0.1), **options))
        state = made.init()
        before = ft.copy(state.params)
        after, metrics = made.train_step(state, ft.MicroBatches(SIGNED))
        assert metrics["loss"].isnan()
        assert after.counters.skipped == 1
        assert tree.equal(after.params, before)

    def test_is_an_error_of_an_evaluation(self) -> None:
        made = ft.program(nn.Linear(2, 1), by_sign, ft.optim.SGD(lr=0.1))
        many = ft.population(made, seeds=[0, 1])
        for one in (made, many):
            state: Any = one.init()
            with pytest.raises(ft.errors.LossError, match="'loss': the weight of a batch"):
                ft.evaluate(one, state, SIGNED)
            assert ft.evaluate(one, state, SIGNED[:1])["loss"]

    def test_is_no_matter_where_nothing_is_averaged(self) -> None:
        made = ft.program(nn.Linear(2, 1), by_sign, ft.optim.SGD(lr=0.1))
        _, metrics = made.train_step(made.init(), SIGNED[1])
        assert metrics["loss"].isfinite()

    def test_makes_a_metric_nan(self) -> None:
        values = torch.tensor([1.0, 2.0])
        assert ft.metrics.Mean.of(values, torch.tensor([2.0, -1.0])).compute().isnan()
        assert ft.metrics.Mean.of(values, torch.tensor([2.0, 0.0])).compute() == 1.0


@pytest.mark.parametrize("metrics", [None, [1.0]])
def test_metrics_without_names_are_refused(metrics: Any) -> None:
    program = ft.program(
        nn.Linear(2, 1),
        lambda model, x: ft.Loss(model(x).mean(), metrics=metrics),
        ft.optim.SGD(lr=0.1),
    )
    with pytest.raises(ft.errors.LossError, match="dict of metrics by name"):
        program.train_step(program.init(), torch.ones(2, 2))


def test_a_part_of_no_weight_counts_for_nothing() -> None:
    def loss(model: nn.Module, batch: Any) -> ft.Loss:
        x, weights = batch
        each = model(x).square().squeeze(-1)
        return ft.Loss((each * weights).sum() / weights.sum(), weight=weights.sum())

    batch = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.ones(8)
    batch[1][:4] = 0
    found = []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), accumulate=accumulate)
        state, metrics = program.train_step(program.init(), batch)
        found.append((dict(state.params), metrics["loss"], metrics["grad_norm"]))
    torch.testing.assert_close(*found)
