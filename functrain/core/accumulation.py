"""Gradients of a step: those of its micro-batches, averaged as those of one big batch would be."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.buffers import statistics_after
from functrain.core.clipping import block_norm
from functrain.core.first_step import warn_of_memory
from functrain.core.gradients import GradientFunction
from functrain.core.loss import LossOutput
from functrain.core.part_sums import Part, divide, mean_loss_output, part_sums
from functrain.core.recipe import StaticParts
from functrain.core.state import Tensors
from functrain.errors import LossError


class StepGradients(NamedTuple):
    """Gradients before clipping, and what the forward left behind.

    Attributes:
        grads: by path, in the order of the trainable parameters.
        params: all parameters after the forward, which may write to some.
        norm: of all gradients, where it is not torch's.
    """

    grads: Tensors
    params: Tensors
    buffers: Tensors
    loss_output: LossOutput
    norm: Tensor | None = None


def scale_of(state: dict[str, Any]) -> Tensor | None:
    """Return fp16's factor on the loss."""
    return None if state["loss_scale"] is None else state["loss_scale"]["scale"]


def step_gradients(
    gradient_function: GradientFunction,
    fixed: StaticParts,
    state: dict[str, Any],
    batches: list[Batch],
    seed: int | None = None,
    watch: bool = False,
) -> StepGradients:
    """Return the mean of the gradients of several micro-batches.

    With weights w and means L over each micro-batch, the mean over all samples is
    ``sum(w * L) / sum(w)``; gradients and metrics follow the same formula.

    Each of several micro-batches has a stream of its own of the step's ``seed``; without one,
    torch's generators are used as they are. ``watch`` copies parameters in the first steps, to see
    whether the forward writes to them, or the loss keeps them.
    """
    given, writes = state["params"], fixed.model.writes
    watched = writes.suspects(given, fixed.trainable) if watch else set()
    params = writes.owned(given, watched)
    part, norm = Part.of(gradient_function, fixed, params, scale_of(state), seed), None
    if len(batches) == 1:
        grads, buffers, loss_output = part.unscaled(part.compute(state["buffers"], batches[0]))
    else:
        grads, buffers, loss_output, norm = _of_micro_batches(
            part, given, state["buffers"], batches
        )
    require_gradients(fixed, grads)
    if watched:
        params = writes.settled(given, params, watched)
    if watch and fixed.model.attributes.left:
        warn_of_memory(fixed, params, state["buffers"], batches[0], state["skipped"].device)
    return StepGradients(grads, params, buffers, loss_output, norm)


def _of_micro_batches(
    part: Part, params: Tensors, buffers: Tensors, batches: list[Batch]
) -> tuple[Tensors, Tensors, LossOutput, Tensor | None]:
    found = part_sums(part, buffers, batches, len(batches), 0, passed=True)
    loss_output, divisor = mean_loss_output(found.loss_outputs, found.weights, part.scale)
    # A backward pass finds them in its own order, and a norm depends on the order.
    total = found.sums[0]
    paths = [path for path in part.fixed.trainable if path in total]
    grads = {path: divide(total.pop(path), divisor, params[path].dtype) for path in paths}
    statistics = statistics_after(part.fixed.model.statistics, buffers, found.buffers)
    norm = block_norm(list(grads.values())) if grads else None
    return grads, {**found.buffers[-1], **statistics}, loss_output, norm


def require_gradients(fixed: StaticParts, grads: Collection[str]) -> None:
    """Refuse a loss that does not depend on any trainable parameter."""
    if not grads:
        raise LossError(
            "the loss does not depend on any of the trainable parameters: "
            f"{fixed.trainable[:5]}. Compute it from the model passed to loss(model, batch)."
        )
