"""Metrics of the torchmetrics package as values."""

from __future__ import annotations

import copy
from typing import Any

import attrs
from torch import Tensor, nn


@attrs.frozen(eq=False)
class TorchMetric:
    """The accumulated state of a torchmetrics metric, as a value: merging changes neither part.

    Attributes:
        seen: the metric after its updates; not to be written to.
        updates: of one batch the arguments of its update: merging gives them to the other metric,
            which is exact for every metric there is. Of several batches they are not kept.
    """

    seen: Any
    updates: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = ()

    @property
    def higher_is_better(self) -> Any:
        """The direction declared by the metric, or by each metric of a collection."""
        if not _is_collection(self.seen):
            return getattr(self.seen, "higher_is_better", None)
        return {name: metric.higher_is_better for name, metric in self.seen.items()}

    def merge(self, other: TorchMetric) -> TorchMetric:
        """Return the metric over the samples of both, in their order."""
        metric = _forked(self.seen)
        for arguments, named in other.updates:
            metric.update(*arguments, **named)
        if not other.updates:
            _merge_states(metric, _forked(other.seen))
        return TorchMetric(metric)

    def compute(self) -> Any:
        """Compute the metric: a scalar, or several by name."""
        return _forked(self.seen).compute()


def from_torchmetrics(metric: Any, *arguments: Any, **named: Any) -> TorchMetric:
    """Return a metric of torchmetrics over a batch, for ``Loss.metrics`` of an evaluation.

    Args:
        metric: such as ``torchmetrics.AUROC("binary")`` or a ``MetricCollection``, made once; it is
            not changed.
        arguments: what its ``update`` takes.
        named: further arguments by name.

    Example:
        >>> import pytest, torch
        >>> torchmetrics = pytest.importorskip("torchmetrics")
        >>> error = torchmetrics.MeanSquaredError()
        >>> one = from_torchmetrics(error, torch.tensor([1.0]), torch.tensor([3.0]))
        >>> one.merge(from_torchmetrics(error, torch.zeros(3), torch.zeros(3))).compute()
        tensor(1.)
    """
    own = _forked(metric)
    own.update(*arguments, **named)
    return TorchMetric(own, ((arguments, named),))


def _merge_states(metric: Any, other: Any) -> None:
    """Merge by torchmetrics' own rule, which not all of its metrics have."""
    if not _is_collection(metric):
        metric.merge_state(other)
        return
    # The parts of a collection may share states; those that lead a group have them.
    for names in metric.compute_groups.values():
        metric[names[0]].merge_state(other[names[0]])


def _forked(metric: Any) -> Any:
    """Return a copy whose updates do not change the original.

    Torchmetrics adds to lists of tensors and never writes to those in them, so these are shared: a
    metric that keeps all predictions would else copy them for every batch.
    """
    kept = [
        tensor
        for part in (metric.values() if _is_collection(metric) else [metric])
        for state in part.metric_state.values()
        if isinstance(state, list)
        for tensor in state
        if isinstance(tensor, Tensor)
    ]
    return copy.deepcopy(metric, {id(tensor): tensor for tensor in kept})


def _is_collection(metric: Any) -> bool:
    return isinstance(metric, nn.ModuleDict)
