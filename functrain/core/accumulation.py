"""Gradients of a step: those of its parts, averaged as those of one big batch would be.

A part is a micro-batch of an accumulating program, or the share of a batch that one of several
processes computes. Each has a random stream of its own, and their sum has the order of a tree
(``core/order.py``), so the result does not depend on which process computes which part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from functrain.core import order
from functrain.core.batch import Batch, copied
from functrain.core.buffers import restarted, statistics_after
from functrain.core.clipping import block_norm
from functrain.core.gradients import (
    GradientFunction,
    Gradients,
    GradientSink,
    GradientsInPiecesError,
)
from functrain.core.loss import Outcome, evaluate
from functrain.core.metrics import merged
from functrain.core.recipe import Fixed
from functrain.core.rng import derive, refuse_system_seed, scoped
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
        norm: of all gradients, where it is not torch's.
    """

    grads: Tensors
    params: Tensors
    buffers: Tensors
    outcome: Outcome
    norm: Tensor | None = None


class PartSums(NamedTuple):
    """The results of consecutive parts of a step.

    Attributes:
        sums: weighted gradients by path, one for each of :func:`order.nodes`.
        outcomes: of each part.
        weights: of each part, scalars.
        buffers: after each part.
    """

    sums: list[Tensors]
    outcomes: list[Outcome]
    weights: list[Tensor]
    buffers: list[Tensors]


def step_gradients(
    gradient_function: GradientFunction,
    fixed: Fixed,
    state: dict[str, Any],
    batches: list[Batch],
    donated: bool = False,
    seed: int | None = None,
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
        seed: of the step's random stream, from which each of several micro-batches has its own;
            without one, torch's generators are used as they are.
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
    if len(batches) == 1:
        # The forward writes into the buffers it is given (BatchNorm does so unseen by autograd).
        own = {path: buffer.clone() for path, buffer in state["buffers"].items()}
        grads, buffers, outcome = of_batch(own, copied(batches[0], device), scale, None)
        norm = None
        if scale is not None:
            grads = {path: grad / scale.to(grad.dtype) for path, grad in grads.items()}
    else:
        part = Part(fixed, of_batch, device, scale, seed)
        grads, buffers, outcome, norm = _of_micro_batches(part, state["buffers"], batches)
    require_gradients(fixed, grads)
    if watched:
        writes.notice(given, params)
        untouched = watched.difference(fixed.updated)  # states go on to share them
        params = {**params, **{path: given[path] for path in untouched}}
    return StepGradients(grads, params, buffers, outcome, norm)


@attrs.frozen(eq=False)
class Part:
    """Takes the gradients of one of several parts of a step, in a random stream of its own.

    Attributes:
        fixed: of the program.
        of_batch: takes the gradients of a batch.
        device: of the parameters.
        scale: fp16's factor on the loss.
        seed: of the step; ``None`` uses torch's generators as they are.
    """

    fixed: Fixed
    of_batch: OfBatch
    device: torch.device
    scale: Tensor | None
    seed: int | None

    def gradients(
        self, number: int, buffers: Tensors, batch: Batch, sink: GradientSink | None
    ) -> Gradients:
        """Return the gradients, except those that have gone to the sink, buffers and outcome.

        Args:
            number: of the part in the step.
            buffers: that it begins with; not changed.
            batch: not changed.
            sink: called with each gradient.
        """

        def compute(sink: GradientSink | None) -> Gradients:
            own = {path: buffer.clone() for path, buffer in buffers.items()}
            return self.of_batch(own, copied(batch, self.device), self.scale, sink)

        if self.seed is None:
            return compute(sink)
        stream = part_stream(self.seed, number)
        with scoped(stream, self.device):
            found = compute(sink)
            refuse_system_seed(stream, functools.partial(compute, None))
        return found


def part_stream(seed: int, number: int) -> int:
    """Return the seed of a part's random stream; that of the first is the step's own."""
    return derive(seed, "part", number) if number else seed


def part_sums(
    part: Part,
    buffers: Tensors,
    batches: Sequence[Batch],
    parts: int,
    start: int,
    passed: bool,
    arrive: Callable[[Sequence[Tensors], str], None] | None = None,
) -> PartSums:
    """Sum the weighted gradients of consecutive parts of a step, as far as they reach.

    No more sums are in memory at a time than the tree has levels.

    Args:
        part: takes the gradients of one.
        buffers: before the step; not changed.
        batches: these parts.
        parts: how many parts the step has.
        start: number of the first of these.
        passed: whether buffers pass from one part to the next, where all begin in one process.
        arrive: called with the sums and a path as soon as those of the leaf are complete.
    """
    found = PartSums([], [], [], [])
    complete = order.merges(parts, start, start + len(batches))
    for number, (batch, merges) in enumerate(zip(batches, complete, strict=True), start):
        if not merges:
            found.sums.append({})
        before = found.buffers[-1] if passed and found.buffers else buffers
        own = restarted(part.fixed.model.statistics, before, buffers)
        last = number == start + len(batches) - 1 and merges < 2
        sink = functools.partial(_add, found.sums, arrive if last else None)
        try:
            _, after, outcome = part.gradients(number, own, batch, sink)
        except GradientsInPiecesError:  # once; the model has learned to hand them over whole
            return part_sums(part, buffers, batches, parts, start, passed, arrive)
        for _ in range(merges - 1):
            _merge(found.sums)
        found.outcomes.append(outcome)
        found.weights.append(outcome.weight_of(batch))
        found.buffers.append(after)
    return found


def _of_micro_batches(
    part: Part, buffers: Tensors, batches: list[Batch]
) -> tuple[Tensors, Tensors, Outcome, Tensor | None]:
    found = part_sums(part, buffers, batches, len(batches), 0, passed=True)
    outcome, divisor = mean_outcome(found.outcomes, found.weights, part.scale)
    # A backward pass finds them in its own order, and a norm depends on the order.
    grads = {path: found.sums[0][path] for path in part.fixed.trainable if path in found.sums[0]}
    for grad in grads.values():
        grad.div_(divisor.to(grad.dtype))
    statistics = statistics_after(part.fixed.model.statistics, buffers, found.buffers)
    norm = block_norm(list(grads.values())) if grads else None
    return grads, {**found.buffers[-1], **statistics}, outcome, norm


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
    value = mean([outcome.value for outcome in outcomes])
    return Outcome(value, weights.sum(), metrics), divisor_of(each, loss_scale)


def divisor_of(weights: list[Tensor], loss_scale: Tensor | None) -> Tensor:
    """Return the divisor for the sum of the weighted gradients of several micro-batches.

    Args:
        weights: of each, scalars.
        loss_scale: fp16's scale.
    """
    total = torch.stack(weights).sum()
    return total if loss_scale is None else total * loss_scale


def _add(
    sums: list[Tensors],
    arrive: Callable[[Sequence[Tensors], str], None] | None,
    weight: Tensor,
    path: str,
    grad: Tensor,
) -> None:
    """Add a gradient to the last sum."""
    weighted, total = grad * weight.to(grad.dtype), sums[-1]
    if path in total:
        total[path].add_(weighted)
    else:
        total[path] = weighted
    if arrive is not None:
        arrive(sums, path)


def _merge(sums: list[Tensors]) -> None:
    """Add the last sum to the one before it."""
    total = sums[-2]
    for path, grad in sums.pop().items():
        total[path] = total[path].add_(grad) if path in total else grad
