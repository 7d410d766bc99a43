"""Metrics: values that are merged over batches and computed once, and rows of plain means.

A loss returns them by name, ``ft.Loss(value, metrics={"accuracy": ft.metrics.Accuracy.of(...)})``.
Plain scalars are averaged by the weight of the loss. Objects with ``merge`` and ``compute`` are
merged over micro-batches and evaluation batches, so they are exact for any split of the samples.
"""

from functrain.core.loss import Metric, computed, is_metric, merged
from functrain.metrics.confusion import ConfusionMatrix
from functrain.metrics.means import Accuracy, Mean, Perplexity
from functrain.metrics.of_torchmetrics import TorchMetric, from_torchmetrics
from functrain.metrics.quantiles import Quantiles
from functrain.metrics.rows import Sums, added, fetch, mean

__all__ = [
    "Accuracy",
    "ConfusionMatrix",
    "Mean",
    "Metric",
    "Perplexity",
    "Quantiles",
    "Sums",
    "TorchMetric",
    "added",
    "computed",
    "fetch",
    "from_torchmetrics",
    "is_metric",
    "mean",
    "merged",
]
