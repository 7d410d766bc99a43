"""Gradients of several micro-batches as those of one batch: their weighted mean."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.gradients import Gradients, Take
from functrain.core.loss import Outcome
from functrain.core.metrics import merged
from functrain.core.state import Tensors
from functrain.errors import LossError


def weighted_mean(
    of_batch: Callable[[Tensors, Batch, Tensor | None, Take | None], Gradients],
    batches: list[Batch],
    trainable: list[str],
    buffers: Tensors,
    loss_scale: Tensor | None,
) -> Gradients:
    """Mean of the gradients of several micro-batches, weighted as one big batch would be.

    With weights w and means L over each micro-batch, the mean over all samples is
    ``sum(w * L) / sum(w)``; gradients and metrics follow the same formula.

    Args:
        of_batch: (buffers, batch, scale, take) -> gradients of one micro-batch.
        batches: at least one.
        trainable: paths in the order that the result has.
        buffers: handed from one micro-batch to the next.
        loss_scale: fp16's scale; divided out of the result.

    Returns:
        Gradients as one batch of all samples would give them.
    """
    if len(batches) == 1:
        only = of_batch(buffers, batches[0], loss_scale, None)
        return only if loss_scale is None else _divided(only, loss_scale)
    outcomes, weights = [], []
    total: Tensors = {}
    for batch in batches:
        part = of_batch(buffers, batch, loss_scale, functools.partial(_add, total))
        buffers = part.buffers
        outcomes.append(part.outcome)
        weights.append(part.outcome.weight_of(batch))
    outcome, divisor = mean_outcome(outcomes, weights, loss_scale)
    # A backward pass finds them in its own order, and a norm depends on the order.
    ordered = {path: total[path] for path in trainable if path in total}
    for grad in ordered.values():
        grad.div_(divisor.to(grad.dtype))
    return Gradients(ordered, buffers, outcome)


def _add(total: Tensors, weight: Tensor, path: str, grad: Tensor) -> None:
    if path in total:
        total[path].addcmul_(grad, weight.to(grad.dtype))
    else:  # not in place: two gradients of autograd may be one tensor
        total[path] = grad * weight.to(grad.dtype)


def mean_outcome(
    outcomes: list[Outcome], each: list[Tensor], loss_scale: Tensor | None
) -> tuple[Outcome, Tensor]:
    """The outcome of several micro-batches, and what the sum of their gradients is divided by.

    Args:
        outcomes: one for each.
        each: their weights, scalars.
        loss_scale: fp16's scale.

    Raises:
        LossError: they report different metrics.
    """
    weights, names = torch.stack(each), outcomes[0].metrics.keys()
    if any(outcome.metrics.keys() != names for outcome in outcomes):
        raise LossError("every micro-batch of a step must report the same metrics")

    def mean(values: list[Any]) -> Any:
        if not all(isinstance(value, Tensor) for value in values):
            return merged(values)
        # The mean over no tokens is NaN, and none of them counts.
        weighed = (torch.stack(values) * weights).masked_fill(weights == 0, 0)
        return weighed.sum() / weights.sum()

    metrics = {name: mean([outcome.metrics[name] for outcome in outcomes]) for name in names}
    everything = weights.sum()
    divisor = everything if loss_scale is None else everything * loss_scale
    return Outcome(mean([outcome.value for outcome in outcomes]), everything, metrics), divisor


def _divided(gradients: Gradients, divisor: Tensor) -> Gradients:
    grads = {path: grad / divisor.to(grad.dtype) for path, grad in gradients.grads.items()}
    return gradients._replace(grads=grads)
