"""Whether less or more of a metric is better."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.metrics import mode


def names(text: str) -> list[str]:
    return text.split()


MORE = names(
    """
    accuracy eval/accuracy eval/ema/top5_accuracy val_acc acc1 macro_f1 f1_macro val_f1 AUROC
    roc_auc bleu rouge1 rougeL mIoU dice_score nDCG recall psnr success_rate reward r2 R2
    mAP exact-match mnli/accuracy top1-accuracy eval/confusion/f1 validation_accuracy
    """
)
LESS = names(
    """
    loss eval/loss epoch/loss val_loss nll nll_loss total_loss error error_rate perplexity ppl
    bits_per_byte mse rmse mean_squared_error WER fid kl_divergence ece brier_score
    cross-entropy log_loss
    """
)
UNKNOWN = names(
    """
    score eval/score elbo loss_scale accuracy_loss accuracy_error negative_accuracy neg_loss
    1-accuracy one_minus_accuracy -loss accuracy_gap loss_std eval/loss/std eval/loss/p95
    time_to_accuracy attack_success_rate learning_rate lr grad_norm delta_acc valLoss
    mnli_accuracy eval/f1/macro recall_at_5 accuracy/score
    """
)


@pytest.mark.parametrize("name", MORE)
def test_more_is_better(name: str) -> None:
    assert mode.mode_of_name(name) == "max"


@pytest.mark.parametrize("name", LESS)
def test_less_is_better(name: str) -> None:
    assert mode.mode_of_name(name) == "min"


@pytest.mark.parametrize("name", [*UNKNOWN, "", "/", "eval/", "1 - accuracy", "a metric"])
def test_nothing_is_assumed_of_other_names(name: str) -> None:
    assert mode.mode_of_name(name) is None


def test_metric_objects_say_it_of_what_they_compute() -> None:
    matrix = ft.metrics.ConfusionMatrix.of(torch.tensor([0, 1]), torch.tensor([0, 1]), 2)
    found = mode.modes_of_metrics({
        "a": ft.metrics.Accuracy.empty(),
        "b": ft.metrics.Perplexity.empty(),
        "c": ft.metrics.Mean.empty(),
        "d": matrix,
        "e": ft.metrics.Quantiles.empty(),
        "f": torch.tensor(1.0),
    })  # fmt: skip
    assert found == {"a": "max", "b": "min", "d": "max"}
    for name in matrix.compute():
        assert mode.resolved_mode(f"d/{name}", None, found) == "max"


def test_metrics_of_torchmetrics_say_it() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    x, y = torch.tensor([0.2, 0.9]), torch.tensor([0, 1])
    both = torchmetrics.MetricCollection(
        {"roc": torchmetrics.AUROC("binary"), "off": torchmetrics.MeanSquaredError()}, prefix="b_"
    )
    found = mode.modes_of_metrics({
        "one": ft.metrics.from_torchmetrics(torchmetrics.MeanAbsoluteError(), x, y),
        "both": ft.metrics.from_torchmetrics(both, x, y),
        "silent": ft.metrics.from_torchmetrics(torchmetrics.MeanMetric(), x),
    })  # fmt: skip
    assert found == {"one": "min", "both/b_roc": "max", "both/b_off": "min"}


def test_own_metrics_may_say_it_of_each_number() -> None:
    class Own:
        def __init__(self, said: Any) -> None:
            self.higher_is_better = said

    values = {"a": Own(True), "b": Own({"x": False, "y": None}), "c": Own(None), "d": Own("yes")}
    assert mode.modes_of_metrics(values) == {"a": "max", "b/x": "min"}


def test_the_users_word_comes_first_then_the_object_then_the_name() -> None:
    objects: Any = {"eval/a": "max", "eval/error": "max"}
    assert mode.resolved_mode("eval/accuracy", "min") == "min"
    assert mode.resolved_mode("error", "min", objects) == "min"
    assert mode.resolved_mode("a", None, objects) == "max"
    assert mode.resolved_mode("eval/a", None, objects) == "max"
    assert mode.resolved_mode("eval/f1", None, objects) == "max"


def test_what_is_not_known_or_contradicts_itself_is_an_error_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"EarlyStop: 'eval/score' .*Give mode='min'"):
        mode.resolved_mode("eval/score", None, {"eval/other": "max"}, "EarlyStop")
    with pytest.raises(ConfigurationError, match=r"'error' implies mode='min', but .*mode='max'"):
        mode.resolved_mode("error", None, {"eval/error": "max"})
