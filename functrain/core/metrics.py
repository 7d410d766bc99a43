"""The protocol of metrics: values that are merged with others of their kind, then computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from functrain.core import learning_rate
from functrain.errors import LossError
from functrain.tree import NamedDict

Metrics = dict[str, Tensor]


@runtime_checkable
class Metric(Protocol):
    """A metric over some samples, as a value.

    ``merge`` is associative and changes neither value. A kind of metric has an ``empty`` value too,
    which leaves what it is merged with as it is. It may say in ``higher_is_better`` (a bool, or a
    mapping of them by the names that it computes) which of two values is better: ``mode`` need not
    be given where it is monitored.
    """

    def merge(self, other: Any) -> Any:
        """Return the metric over the samples of both."""
        ...

    def compute(self) -> Any:
        """Return a number or 0-dim tensor, or several of them by name."""
        ...


def is_metric(value: object) -> bool:
    """Whether a value is merged over batches rather than averaged.

    Example:
        >>> from functrain.metrics import Mean
        >>> is_metric(Mean.empty()), is_metric(torch.tensor(0.5))
        (True, False)
    """
    return not isinstance(value, Tensor) and isinstance(value, Metric)


def merged(values: Sequence[Any]) -> Any:
    """One metric over the samples of several of the same kind.

    Args:
        values: at least one.

    Raises:
        LossError: they are of different kinds.
    """
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        names = sorted(kind.__name__ for kind in kinds)
        raise LossError(f"a metric must be of the same kind for every batch, it was one of {names}")
    return functools.reduce(lambda one, other: one.merge(other), values)


def computed(metrics: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Metrics as 0-dim tensors; one that computes several gives ``name/key`` for each.

    Args:
        metrics: tensors, which stay as they are, and values with ``compute``.
        device: where the tensors go.

    Raises:
        LossError: one computes something else than a number or several by name, or what it
            computes has the name of another.

    Example:
        >>> from functrain.metrics import Mean, Quantiles
        >>> spread = Quantiles.of(torch.arange(5.0), at=(0.5, 1.0))
        >>> found = {"mean": Mean.of(torch.ones(3)), "spread": spread}
        >>> {name: value.item() for name, value in computed(found, torch.device("cpu")).items()}
        {'mean': 1.0, 'spread/p50': 2.0, 'spread/p100': 4.0}
    """
    found: dict[str, Tensor] = {}
    for name, metric in metrics.items():
        value = metric if isinstance(metric, Tensor) else metric.compute()
        several = value if isinstance(value, Mapping) else {"": value}
        for key, one in several.items():
            full = f"{name}/{key}" if key else name
            if full in found:
                raise LossError(f"two metrics are named {full!r}: give one of them another name")
            found[full] = one if one is metric else _scalar(name, one, device)
    return found


def reported(outputs: Mapping[str, Any], lr: learning_rate.Rate) -> dict[str, Tensor]:
    """Return the metrics of a step; with several groups, the rate of each."""
    rates = {name: _as_tensor(rate) for name, rate in learning_rate.by_name(lr).items()}
    found = {
        "loss": outputs["loss"],
        "lr": rates.pop("lr"),
        "grad_norm": outputs["grad_norm"],
        **rates,
        **outputs["metrics"],
    }
    return NamedDict(found)


def unmeasured(*shape: int) -> dict[str, Tensor]:
    """Return the metrics of a batch without samples, for which no step is made."""
    nothing = torch.full(shape, math.nan)
    return NamedDict(loss=nothing, lr=nothing, grad_norm=nothing)


def _as_tensor(rate: float | Tensor) -> Tensor:
    if isinstance(rate, Tensor):
        return rate.detach()
    return torch.scalar_tensor(rate, dtype=torch.float64)


def _scalar(name: str, value: Any, device: torch.device) -> Tensor:
    if not isinstance(value, Tensor | int | float):
        raise LossError(
            f"metric {name!r} computes a {type(value).__name__}, where a number, a 0-dim tensor or "
            "a mapping of them by name is expected"
        )
    # A copy: it may be a part of the state, which a donated step writes over.
    tensor = torch.as_tensor(value, device=device).detach().clone()
    if tensor.numel() != 1:
        raise LossError(
            f"metric {name!r} computes a tensor of shape {list(tensor.shape)}, where a number or "
            "several by name are expected"
        )
    tensor = tensor.reshape(())
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)
