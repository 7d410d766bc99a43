"""The values that a loss function may return: a loss, its weight, and metrics beside it.

Metrics are scalars, which are averaged over batches by their weights, or values of the protocol
:class:`Metric`, which are merged with others of their kind, then computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from functrain.core import learning_rate
from functrain.core.batch import known_size
from functrain.core.precision import Precision, autocast, widened
from functrain.errors import LossError
from functrain.tree import NamedDict

RESERVED = frozenset({"loss", "lr", "grad_norm", "step", "epoch"})

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


class Loss(NamedTuple):
    """A loss with the weight it was averaged over, and metrics to report beside it.

    A named tuple rather than an attrs class: a user may put their loss under ``torch.compile``, and
    Dynamo cannot construct frozen attrs objects.

    Attributes:
        value: scalar tensor, the mean loss.
        weight: what the mean was taken over (tokens, say): a number or scalar tensor. ``None``
            stands for the batch size (:func:`functrain.data.size`). Micro-batches and evaluation
            batches are averaged by it. One below 0 is an error; a tensor's value is not read for
            it, but stands for NaN.
        metrics: by name, scalars, averaged in the same way, or values such as
            ``functrain.metrics.Accuracy.of(...)``, which are merged.

    Example:
        >>> Loss(torch.tensor(0.5), weight=128).weight
        128
    """

    value: Tensor
    weight: Tensor | float | None = None
    metrics: Mapping[str, Tensor | float | Metric] = {}


LossFunction = Callable[[nn.Module, Any], Tensor | Loss]


class LossOutput(NamedTuple):
    """A checked loss.

    Attributes:
        value: scalar, still in the graph; ``None`` of a step of one's own that reports no loss.
        weight: what it was averaged over; ``None`` for the batch size.
        metrics: detached scalars, and metrics that are values.
    """

    value: Tensor
    weight: Tensor | float | None
    metrics: dict[str, Any]

    def named(self) -> dict[str, Any]:
        """Return the loss, if there is one, and the metrics by name."""
        return self.metrics if self.value is None else {"loss": self.value, **self.metrics}

    def weight_of(self, batch: Any) -> Tensor:
        """Return the weight as a scalar tensor on the device of the loss."""
        weight = known_size(batch) if self.weight is None else self.weight
        value: Any = self.value
        device = torch.device("cpu") if value is None else value.device
        if isinstance(weight, Tensor):
            return not_negative(widened(weight.reshape(()).to(device)))
        return widened(torch.tensor(float(weight), device=device))


def not_negative(weight: Tensor) -> Tensor:
    """Return weights with NaN in place of those below 0, so that no mean hides them.

    The host must not wait for the device to look at a weight. A NaN gets as far as the numbers that
    it reads anyway, and says the same in a graph.
    """
    return weight.masked_fill(weight < 0, torch.nan)


def evaluate(
    function: LossFunction,
    model: nn.Module,
    batch: Any,
    device: torch.device,
    precision: Precision = "float32",
    weight_graph: bool = False,
) -> LossOutput:
    """Call the user's loss and put what it returned into one form.

    ``weight_graph`` keeps the graph of the weight, on which an average of several batches depends.
    """
    if precision == "float32":
        returned = function(model, batch)
    else:
        with autocast(precision, device):
            returned = function(model, batch)
    given: Any = returned if isinstance(returned, Loss) else Loss(returned)
    value, weight, metrics = given
    if not isinstance(metrics, Mapping):
        from functrain.diagnosis.loss_errors import explain_metrics

        raise explain_metrics(metrics)
    return LossOutput(
        _checked_loss(value),
        _checked_weight(weight, weight_graph),
        {name: _checked_metric(name, one, device) for name, one in metrics.items()},
    )


def _checked_loss(value: Any) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
        return value if value.ndim == 0 else value.reshape(())
    from functrain.diagnosis.loss_errors import explain_loss

    raise explain_loss(value)


def _checked_weight(weight: Any, keeps_graph: bool) -> Any:
    if weight is None or (isinstance(weight, Real) and float(weight) >= 0):
        return weight
    # The value of a tensor is not read: the host would wait for its device.
    if isinstance(weight, Tensor) and weight.numel() == 1 and not weight.is_complex():
        return weight if keeps_graph else weight.detach()
    from functrain.diagnosis.loss_errors import explain_weight

    raise explain_weight(weight)


def _checked_metric(name: Any, value: Any, device: torch.device) -> Any:
    if isinstance(name, str) and name not in RESERVED and not name.startswith("lr."):
        found = scalar(value, device)
        if found is not None or is_metric(value):
            return value if found is None else found
    from functrain.diagnosis.loss_errors import explain_metric

    raise explain_metric(name, value)


def scalar(value: Any, device: torch.device) -> Tensor | None:
    """Return a number as a 0-dim floating-point tensor on a device; ``None`` for other values."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        dtype = value.dtype if value.is_floating_point() else torch.float32
        # A copy: it may be a part of the state, which a donated step writes over.
        found = value.detach().to(device, dtype, copy=True)
        return found if found.ndim == 0 else found.reshape(())
    return torch.tensor(float(value), device=device) if isinstance(value, Real) else None


def is_metric(value: object) -> bool:
    """Whether a value is merged over batches rather than averaged.

    Example:
        >>> from functrain.metrics import Mean
        >>> is_metric(Mean.empty()), is_metric(torch.tensor(0.5))
        (True, False)
    """
    return not isinstance(value, Tensor) and isinstance(value, Metric)


def merged(values: Sequence[Any]) -> Any:
    """Return one metric over the samples of several, which must be of the same kind."""
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        names = sorted(kind.__name__ for kind in kinds)
        raise LossError(f"a metric must be of the same kind for every batch, it was one of {names}")
    return functools.reduce(lambda one, other: one.merge(other), values)


def computed(metrics: Mapping[str, Any], device: torch.device) -> Metrics:
    """Return metrics as 0-dim tensors; one that computes several gives ``name/key`` for each.

    Tensors stay as they are.

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
    found: Metrics = {}
    for name, metric in metrics.items():
        value = metric if isinstance(metric, Tensor) else metric.compute()
        several = value if isinstance(value, Mapping) else {"": value}
        for key, one in several.items():
            full = f"{name}/{key}" if key else name
            if full in found:
                raise LossError(f"two metrics are named {full!r}: give one of them another name")
            found[full] = one if one is metric else _computed_scalar(name, one, device)
    return found


def _computed_scalar(name: str, value: Any, device: torch.device) -> Tensor:
    if (found := scalar(value, device)) is not None:
        return found
    from functrain.diagnosis.loss_errors import explain_computed

    raise explain_computed(name, value)


def reported(outputs: Mapping[str, Any], lr: learning_rate.Rate) -> Metrics:
    """Return the metrics of a step; with several groups, the rate of each."""
    rates = {name: _as_tensor(rate) for name, rate in learning_rate.by_name(lr).items()}
    named = {"loss": outputs["loss"], "lr": rates.pop("lr"), "grad_norm": outputs["grad_norm"]}
    return NamedDict({**named, **rates, **outputs["metrics"]})


def _as_tensor(rate: float | Tensor) -> Tensor:
    if isinstance(rate, Tensor):
        return rate.detach()
    return torch.scalar_tensor(rate, dtype=torch.float64)


def unmeasured(*shape: int) -> Metrics:
    """Return the metrics of a batch without samples, for which no step is made."""
    nothing = torch.full(shape, math.nan)
    return NamedDict(loss=nothing, lr=nothing, grad_norm=nothing)
