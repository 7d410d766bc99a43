"""Gradients of a step: those of its micro-batches, averaged as those of one big batch would be."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.core.batch import Batch, copied
from functrain.core.gradients import GradientFunction, Gradients, GradientSink
from functrain.core.loss import Outcome, evaluate
from functrain.core.metrics import merged
from functrain.core.recipe import Fixed
from functrain.core.state import Tensors
from functrain.errors import LossError

# (buffers, batch, loss scale, sink) -> gradients of one micro-batch.
OfBatch = Callable[[Tensors, Batch, Tensor | None, GradientSink | None], Gradients]


class StepGradients(NamedTuple):
    """Gradients before clipping, and what the forward left behind.

    Attributes:
        grads: by path, in the order of the trainable parameters.
        params: all parameters after the forward, which may write to some.
        buffers: after the forward.
        outcome: loss, weight and metrics.
    """

    grads: Tensors
    params: Tensors
    buffers: Tensors
    outcome: Outcome


def step_gradients(
    gradient_function: GradientFunction,
    fixed: Fixed,
    state: dict[str, Any],
    batches: list[Batch],
    donated: bool = False,
    watch: bool = False,
) -> StepGradients:
    """Return the mean of the gradients of several micro-batches.

    With weights w and means L over each micro-batch, the mean over all samples is
    ``sum(w * L) / sum(w)``; gradients and metrics follow the same formula.

    Args:
        gradient_function: by ``torch.autograd`` or by ``torch.func``.
        fixed: recipe, model shell, trainable paths.
        state: ``params``, ``buffers`` and ``loss_scale`` of a state; not changed.
        batches: at least one, on any device; not changed.
        donated: whether the step may write to the trained parameters afterwards.
        watch: copy parameters in the first steps, to see whether the forward writes to them.

    Raises:
        LossError: no trainable parameter has a gradient, or micro-batches report other metrics.
    """
    given, writes = state["params"], fixed.model.writes
    watched = writes.suspects(given, fixed.trainable, donated) if watch else set()
    params = writes.owned(given, watched)
    device = next(iter(params.values())).device
    of_batch = differentiation(fixed, gradient_function, params, device)
    scale = None if state["loss_scale"] is None else state["loss_scale"]["scale"]
    # The forward writes into the buffers it is given (BatchNorm does so unseen by autograd).
    buffers = {path: buffer.clone() for path, buffer in state["buffers"].items()}
    total: Tensors = {}
    sink = functools.partial(_add, total) if len(batches) > 1 else None
    outcomes, weights = [], []
    for batch in copied(batches, device):
        grads, buffers, outcome = of_batch(buffers, batch, scale, sink)
        outcomes.append(outcome)
        if sink is not None:
            weights.append(outcome.weight_of(batch))
    if sink is not None:
        outcome, divisor = mean_outcome(outcomes, weights, scale)
        # A backward pass finds them in its own order, and a norm depends on the order.
        grads = {path: total[path] for path in fixed.trainable if path in total}
        for grad in grads.values():
            grad.div_(divisor.to(grad.dtype))
    elif scale is not None:
        grads = {path: grad / scale.to(grad.dtype) for path, grad in grads.items()}
    require_gradients(fixed, grads)
    if watched:
        writes.notice(given, params)
        untouched = watched.difference(fixed.updated)  # states go on to share them
        params = {**params, **{path: given[path] for path in untouched}}
    return StepGradients(grads, params, buffers, outcome)


def differentiation(
    fixed: Fixed, gradient_function: GradientFunction, params: Tensors, device: torch.device
) -> OfBatch:
    """Return the function that takes the gradients of one micro-batch as the recipe asks for."""
    recipe = fixed.recipe
    forward = functools.partial(evaluate, recipe.loss, device=device, precision=recipe.precision)
    if recipe.sharpness is not None:
        gradient_function = recipe.sharpness.around(gradient_function)
    return functools.partial(gradient_function, fixed.model, forward, fixed.trainable, params)


def require_gradients(fixed: Fixed, grads: Collection[str]) -> None:
    """Refuse a loss that does not depend on any trainable parameter.

    Raises:
        LossError: there is no gradient.
    """
    if not grads:
        raise LossError(
            "the loss does not depend on any of the trainable parameters: "
            f"{fixed.trainable[:5]}. Compute it from the model passed to loss(model, batch)."
        )


def mean_outcome(
    outcomes: list[Outcome], each: list[Tensor], loss_scale: Tensor | None
) -> tuple[Outcome, Tensor]:
    """Return the outcome of several micro-batches, and the divisor for the sum of their gradients.

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
    total = weights.sum()
    divisor = total if loss_scale is None else total * loss_scale
    return Outcome(mean([outcome.value for outcome in outcomes]), total, metrics), divisor


def _add(total: Tensors, weight: Tensor, path: str, grad: Tensor) -> None:
    if path in total:
        total[path].addcmul_(grad, weight.to(grad.dtype))
    else:  # not in place: two gradients of autograd may be one tensor
        total[path] = grad * weight.to(grad.dtype)
