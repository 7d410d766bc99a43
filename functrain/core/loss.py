"""The values that a loss function may return, and their check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from functrain.core.batch import known_size
from functrain.core.metrics import Metric, is_metric
from functrain.core.precision import Precision, autocast, widened
from functrain.errors import ConfigurationError, LossError

RESERVED = frozenset({"loss", "lr", "grad_norm", "step", "epoch"})


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
        found = widened(_scalar("weight", weight, device))
        return not_negative(found) if isinstance(weight, Tensor) else found


def not_negative(weight: Tensor) -> Tensor:
    """Return weights with NaN in place of those below 0, so that no mean hides them.

    The host must not wait for the device to look at a weight. A NaN gets as far as the numbers that
    it reads anyway, and says the same in a graph.
    """
    return weight.masked_fill(weight < 0, torch.nan)


def refuse_weight(loss_output: LossOutput, parts: int) -> None:
    """Refuse the weight of a micro-batch that made the whole step NaN; waits for the device."""
    weight = loss_output.weight
    if parts > 1 and isinstance(weight, Tensor) and bool(weight.isnan()):
        raise LossError(
            "Loss(value, weight, metrics): the weight of a micro-batch is below 0 or NaN, so they "
            "have no mean. Expected a number >= 0 or a scalar tensor of one"
        )
    if parts > 1 and bool(loss_output.value.isnan()) and weight is not None and not bool(weight):
        raise LossError(
            "Loss(value, weight, metrics): the weights of all micro-batches of the step are 0, so "
            "they have no mean. Give a batch in which something counts, or leave the batch out"
        )


LossFunction = Callable[[nn.Module, Any], Tensor | Loss]


# How the first argument begins where predictions are compared with targets.
_PREDICTIONS = (
    *("input", "output", "pred", "logit", "log_", "anchor"),
    *("y_pred", "y_hat", "yhat", "y_true"),
)


def refuse_criterion(function: LossFunction | None) -> None:
    """Refuse ``nn.CrossEntropyLoss()`` and its like where ``loss(model, batch)`` is expected.

    Example:
        >>> refuse_criterion(nn.functional.mse_loss)
        Traceback (most recent call last):
        functrain.errors.ConfigurationError: mse_loss takes (input, target, ...), but functrain ...
    """
    is_class = isinstance(function, type) and issubclass(function, nn.Module)
    given: Any = function
    called = given.forward if is_class or isinstance(given, nn.Module) else given
    try:
        names = list(inspect.signature(called).parameters)[is_class:]  # without self
    except (TypeError, ValueError):  # some builtins have no signature
        return
    if not names or not names[0].startswith(_PREDICTIONS):
        return
    inner = getattr(function, "func", function)  # of a functools.partial
    name = getattr(inner, "__name__", type(inner).__name__)
    takes = ", ".join([*names[:2], "..."] if len(names) > 2 else names)
    raise ConfigurationError(
        f"{name} takes ({takes}), but functrain calls loss(model, batch). Write the forward pass "
        f"as in a loop of your own: def loss(model, batch): x, y = batch; return {name}(model(x), "
        "y), with an instance of it where it is a class"
    )


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
    if not isinstance(returned, Loss):
        return LossOutput(_scalar_loss(returned), None, {})
    value, loss = _scalar_loss(returned.value), returned
    _check_weight(loss.weight)
    if others := [name for name in loss.metrics if not isinstance(name, str)]:
        raise LossError(f"functrain.Loss: expected metrics by name, got {others[0]!r} as a name")
    metrics = {
        name: metric if is_metric(metric) else _scalar(name, _detached(metric), device)
        for name, metric in loss.metrics.items()
    }
    if clash := sorted(name for name in metrics if name in RESERVED or name.startswith("lr.")):
        raise LossError(
            f"Loss.metrics may not use the names {clash}: a step and its row in the "
            "log have their own values under them. Give yours other names."
        )
    weight = loss.weight if weight_graph else _detached(loss.weight)
    return LossOutput(value, weight, metrics)


# The probable mistake where a loss returns something of this class.
_RETURNED: dict[type, str] = {
    type(None): ": it lacks its return statement",
    float: ": leave out .item() and float()",
    tuple: "; metrics go with the loss, return functrain.Loss(value, metrics={'accuracy': ...})",
    dict: "; metrics go with the loss, return functrain.Loss(value, metrics={'accuracy': ...})",
}


def _scalar_loss(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise LossError(
            "loss(model, batch) must return a scalar tensor or functrain.Loss(value, weight, "
            f"metrics), it returned {type(value).__name__}{_RETURNED.get(type(value), '')}"
        )
    if value.numel() != 1:
        raise LossError(
            f"the loss must be a scalar, it has shape {list(value.shape)}. Reduce it, for example "
            "with .mean()."
        )
    if not value.is_floating_point():
        raise LossError(f"the loss must be a floating-point scalar, its dtype is {value.dtype}")
    return value if value.ndim == 0 else value.reshape(())


def _check_weight(weight: Any) -> None:
    if isinstance(weight, Tensor) and weight.numel() == 1:  # its value is not read: it may be away
        return
    if weight is None or (isinstance(weight, Real) and float(weight) >= 0):
        return
    got = f"shape {list(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
    raise LossError(
        "Loss(value, weight, metrics): expected a number >= 0 or a scalar tensor as weight, got "
        f"{weight if isinstance(weight, Real) else got}. Metrics are the third argument: "
        "metrics={...}"
    )


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _scalar(name: str, value: Any, device: torch.device) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        dtype = value.dtype if value.is_floating_point() else torch.float32
        # A copy: it may be a part of the state, which a donated step writes over.
        return value.reshape(()).to(device, dtype, copy=True)
    if isinstance(value, Real):
        return torch.tensor(float(value), device=device)
    got = type(value).__name__
    if isinstance(value, Tensor):
        got = f"shape {list(value.shape)} and dtype {value.dtype}"
    raise LossError(f"{name!r} of functrain.Loss: expected a number or a scalar tensor, got {got}")
