"""Errors of a loss or a metric of a value that a step cannot take."""

from __future__ import annotations

from numbers import Real
from typing import Any

from torch import Tensor

from functrain.core.loss import RESERVED, LossOutput
from functrain.errors import ConfigurationError, LossError

# The probable mistake where a loss returns something of this class.
_RETURNED: dict[type, str] = {
    type(None): ": it lacks its return statement",
    float: ": leave out .item() and float()",
    tuple: "; metrics go with the loss, return functrain.Loss(value, metrics={'accuracy': ...})",
    dict: "; metrics go with the loss, return functrain.Loss(value, metrics={'accuracy': ...})",
}


def explain_criterion(function: Any, names: list[str]) -> ConfigurationError:
    """Return the error for a function of predictions and targets in place of a loss."""
    inner = getattr(function, "func", function)  # of a functools.partial
    name = getattr(inner, "__name__", type(inner).__name__)
    takes = ", ".join([*names[:2], "..."] if len(names) > 2 else names)
    return ConfigurationError(
        f"{name} takes ({takes}), but functrain calls loss(model, batch). Write the forward pass "
        f"as in a loop of your own: def loss(model, batch): x, y = batch; return {name}(model(x), "
        "y), with an instance of it where it is a class"
    )


def explain_loss(value: Any) -> LossError:
    """Return the error for what is no scalar loss."""
    if not isinstance(value, Tensor):
        return LossError(
            "loss(model, batch) must return a scalar tensor or functrain.Loss(value, weight, "
            f"metrics), it returned {type(value).__name__}{_RETURNED.get(type(value), '')}"
        )
    if value.numel() != 1:
        return LossError(
            f"the loss must be a scalar, it has shape {list(value.shape)}. Reduce it, for example "
            "with .mean()."
        )
    return LossError(f"the loss must be a floating-point scalar, its dtype is {value.dtype}")


def explain_weight(weight: Any) -> LossError:
    """Return the error for what is no weight of a loss."""
    return LossError(
        "Loss(value, weight, metrics): expected a number >= 0 or a scalar tensor as weight, got "
        f"{weight if isinstance(weight, Real) else _described(weight)}. Metrics are the third "
        "argument: metrics={...}"
    )


def explain_metrics(metrics: Any) -> LossError:
    """Return the error for metrics that have no names."""
    return LossError(
        "Loss(value, weight, metrics): expected a dict of metrics by name, metrics={...}, got "
        f"{_described(metrics)}"
    )


def explain_metric(name: Any, value: Any) -> LossError:
    """Return the error for a metric that a loss may not return under this name."""
    if not isinstance(name, str):
        return LossError(f"functrain.Loss: expected metrics by name, got {name!r} as a name")
    if name in RESERVED or name.startswith("lr."):
        return LossError(
            f"Loss.metrics may not use the name {name!r}: a step and its row in the log have "
            "their own values under it. Give yours another name."
        )
    return LossError(
        f"{name!r} of functrain.Loss: expected a number or a scalar tensor, got {_described(value)}"
    )


def explain_computed(name: str, value: Any) -> LossError:
    """Return the error for what a metric computes, if that is no number."""
    got = f"tensor of {_described(value)}" if isinstance(value, Tensor) else type(value).__name__
    return LossError(
        f"metric {name!r} computes a {got}, where a number, a 0-dim tensor or a mapping of them by "
        "name is expected"
    )


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


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"shape {list(value.shape)} and dtype {value.dtype}"
    return type(value).__name__
