"""Metrics that are merged: exact however the samples are cut, and as others compute them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain import metrics, tree
from functrain.errors import LossError

pytestmark = pytest.mark.row(24)

CLASSES, SAMPLES = 5, 37


def predictions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SAMPLES, CLASSES, generator=generator)
    return logits, torch.randint(0, CLASSES - 1, (SAMPLES,), generator=generator)


OF = {
    "mean": lambda logits, targets: metrics.Mean.of(logits[:, 0], targets.float()),
    "accuracy": lambda logits, targets: metrics.Accuracy.of(logits, targets),
    "top 2": lambda logits, targets: metrics.Accuracy.of(logits, targets, top=2),
    "perplexity": lambda logits, targets: metrics.Perplexity.of(logits, targets),
    "confusion": lambda logits, targets: metrics.ConfusionMatrix.of(logits, targets, CLASSES),
    "quantiles": lambda logits, targets: metrics.Quantiles.of(logits),
}
EMPTY = {
    "mean": metrics.Mean.empty(),
    "accuracy": metrics.Accuracy.empty(),
    "top 2": metrics.Accuracy.empty(),
    "perplexity": metrics.Perplexity.empty(),
    "confusion": metrics.ConfusionMatrix.empty(CLASSES),
    "quantiles": metrics.Quantiles.empty(),
}


@pytest.mark.parametrize("kind", OF)
@pytest.mark.parametrize("cuts", [[1, 36], [10, 10, 17], [1] * SAMPLES])
def test_parts_merge_to_the_whole(kind: str, cuts: list[int]) -> None:
    logits, targets = predictions()
    parts = list(map(OF[kind], logits.split(cuts), targets.split(cuts)))
    before = tree.digest(parts)
    found = metrics.computed({"x": metrics.merged([EMPTY[kind], *parts])}, logits.device)
    expected = metrics.computed({"x": OF[kind](logits, targets)}, logits.device)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0)
    assert tree.digest(parts) == before


def test_they_compute_what_scikit_learn_does() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, targets = predictions()
    named = metrics.ConfusionMatrix.of(logits, targets, CLASSES)
    chosen = logits.argmax(-1)
    labels = list(range(CLASSES))
    assert (
        named.counts.tolist() == sklearn.confusion_matrix(targets, chosen, labels=labels).tolist()
    )
    options = {"average": "macro", "zero_division": 0}
    found = named.compute()
    assert found["precision"].item() == sklearn.precision_score(targets, chosen, **options)
    assert found["recall"].item() == sklearn.recall_score(targets, chosen, **options)
    assert found["f1"].item() == pytest.approx(sklearn.f1_score(targets, chosen, **options), 1e-12)
    right = metrics.Accuracy.of(logits, targets).compute().item()
    assert right == found["accuracy"].item() == sklearn.accuracy_score(targets, chosen)
    second = sklearn.top_k_accuracy_score(targets, logits, k=2, labels=labels)
    assert metrics.Accuracy.of(logits, targets, top=2).compute().item() == second


def test_what_is_to_be_ignored_counts_nowhere() -> None:
    logits, targets = predictions()
    kept, some = targets.clone(), torch.arange(SAMPLES) % 3 == 0
    kept[some] = -100
    for kind in ("accuracy", "top 2", "perplexity", "confusion"):
        found = metrics.computed({"x": OF[kind](logits, kept)}, logits.device)
        expected = metrics.computed({"x": OF[kind](logits[~some], targets[~some])}, logits.device)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0)


def test_perplexity_and_quantiles_are_torchs_and_numpys() -> None:
    logits, targets = predictions()
    entropy = F.cross_entropy(logits.double(), targets)
    found = metrics.Perplexity.of(logits, targets).compute()
    torch.testing.assert_close(found, entropy.exp(), rtol=1e-6, atol=0)
    shares = (0.0, 0.1, 0.333, 0.5, 1.0)
    quantiles = metrics.Quantiles.of(logits, shares).compute()
    expected = np.quantile(logits.numpy(), shares)
    assert [value.item() for value in quantiles.values()] == pytest.approx(expected, rel=1e-6)
    assert list(quantiles) == ["p0", "p10", "p33.3", "p50", "p100"]


def test_of_nothing_is_nan() -> None:
    for kind, value in EMPTY.items():
        found = metrics.computed({"x": value}, torch.device("cpu"))
        assert all(one.isnan() for one in found.values()) or kind == "confusion", kind


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    x, y = batch
    logits = model(x)
    found = {"accuracy": metrics.Accuracy.of(logits, y), "spread": metrics.Quantiles.of(logits)}
    return ft.Loss(F.cross_entropy(logits, y), metrics=found)


def program(function: Any = loss, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    return ft.program(nn.Linear(3, CLASSES), function, ft.optim.SGD(lr=0.1), **options)


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(1)), predictions()[1]


def test_an_evaluation_is_exact_over_uneven_batches() -> None:
    made = program()
    state = made.init()
    whole = ft.evaluate(made, state, [data()])
    parts = ft.evaluate(made, state, ft.data.Batches(data(), 5, shuffle=False))
    assert parts == pytest.approx(whole, rel=1e-6)
    assert sorted(parts) == ["accuracy", "loss", "spread/p5", "spread/p50", "spread/p95"]
    # The mean of the batches' own quantiles is another number.
    means = [
        ft.evaluate(made, state, [(x, y)])["spread/p95"] for x, y in zip(*split(), strict=True)
    ]
    assert abs(np.mean(means) - whole["spread/p95"]) > 1e-3


def split() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    x, y = data()
    return x.split(5), y.split(5)


@pytest.mark.parametrize("transform", [lambda p: p, lambda p: ft.compiled(p, backend="eager")])
def test_micro_batches_of_a_step_are_merged(transform: Any) -> None:
    x, y = data()
    whole = transform(program())
    cut = transform(program(accumulate=3))
    _, expected = whole.train_step(whole.init(), (x, y))
    after, found = cut.train_step(cut.init(), (x, y))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-5
    )
    assert all(value.ndim == 0 and not value.requires_grad for value in found.values())
    evaluated = cut.eval_step(after, (x, y))
    assert evaluated["spread/p50"].ndim == 0


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (metrics.Mean(torch.zeros(2), torch.ones(2)), r"'odd' computes a tensor of shape \[2\]"),
        (type("Odd", (), {"merge": max, "compute": lambda self: "text"})(), "computes a str"),
    ],
)
def test_what_computes_no_number_is_named(metric: Any, message: str) -> None:
    made = program(lambda model, batch: ft.Loss(model(batch[0]).mean(), metrics={"odd": metric}))
    with pytest.raises(LossError, match=message):
        made.train_step(made.init(), data())


class TestTorchmetrics:
    """Metrics of torchmetrics, over batches of any size."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("torchmetrics")

    def metrics(self) -> Any:
        import torchmetrics

        options = {"task": "multiclass", "num_classes": CLASSES}
        both = torchmetrics.MetricCollection(
            {
                "f1": torchmetrics.F1Score(**options, average="macro"),
                "auroc": torchmetrics.AUROC(**options),
            }
        )
        return {"both": both, "correlation": torchmetrics.SpearmanCorrCoef()}

    def test_an_evaluation_is_that_of_torchmetrics(self) -> None:
        import torchmetrics

        held = self.metrics()

        def function(model: nn.Module, batch: Any) -> ft.Loss:
            x, y = batch
            logits = model(x)
            correlation = metrics.from_torchmetrics(held["correlation"], logits[:, 0], y.float())
            both = metrics.from_torchmetrics(held["both"], logits, y)
            return ft.Loss(F.cross_entropy(logits, y), metrics={"m": both, "c": correlation})

        made = program(function)
        state = made.init()
        parts = ft.evaluate(made, state, ft.data.Batches(data(), 5, shuffle=False))
        with made.evaluating(state) as model:
            logits = model(data()[0])
        fresh = self.metrics()
        fresh["both"].update(logits, data()[1])
        fresh["correlation"].update(logits[:, 0], data()[1].float())
        expected = {f"m/{name}": value.item() for name, value in fresh["both"].compute().items()}
        expected["c"] = fresh["correlation"].compute().item()
        assert {name: parts[name] for name in expected} == pytest.approx(expected, rel=1e-6)
        assert not held["correlation"].update_called
        assert isinstance(held["both"], torchmetrics.MetricCollection)

    def test_two_halves_merge_by_torchmetrics_own_rule(self) -> None:
        logits, targets = predictions()
        for metric in (self.metrics()["both"], self.metrics()["both"]["f1"]):
            batches = list(zip(logits.split(5), targets.split(5), strict=True))
            parts = [metrics.from_torchmetrics(metric, *batch) for batch in batches]
            first, second = metrics.merged(parts[:4]), metrics.merged(parts[4:])
            whole = metrics.from_torchmetrics(metric, logits, targets).compute()
            torch.testing.assert_close(first.merge(second).compute(), whole)
            torch.testing.assert_close(first.merge(second).compute(), whole)


@pytest.mark.parametrize("first", [True, False])
def test_what_a_metric_computes_has_no_name_of_another(first: bool) -> None:
    several = {"spread": metrics.Quantiles.of(torch.arange(5.0), at=(0.5,))}
    one = {"spread/p50": torch.ones(())}
    with pytest.raises(LossError, match="two metrics are named 'spread/p50'"):
        metrics.computed({**several, **one} if first else {**one, **several}, torch.device("cpu"))
