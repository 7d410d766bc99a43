"""Gradients of a step: the weighted mean over its parts, as one big batch would give it.

A part is a micro-batch, or the share of a batch that one of several processes computes.

Floating-point addition is not associative, so a sum has the same bits only if its terms are added
in the same order. Here that is a binary tree over the numbers of the parts: a process adds up whole
subtrees of its own parts, and the sums above them are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import attrs
import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.batch_lending import ALWAYS_COPIED, BatchLending
from functrain.core.buffers import composable, restarted, statistics_after
from functrain.core.clipping import block_norm
from functrain.core.first_step import warn_of_memory
from functrain.core.gradients import (
    GradientFunction,
    Gradients,
    inputs_of,
    require_dependence,
    scale_of,
    scaled,
)
from functrain.core.loss import LossOutput, merged
from functrain.core.precision import widened
from functrain.core.recipe import StaticParts
from functrain.core.rng import derive, refuse_system_seed, scoped
from functrain.core.state import Tensors
from functrain.errors import LossError

Node: TypeAlias = tuple[int, int]
"""The sum of the parts from the first number up to, but not including, the second."""


def step_gradients(
    gradient: GradientFunction,
    fixed: StaticParts,
    state: dict[str, Any],
    batches: list[Batch],
    seed: int | None = None,
    watch: bool = False,
) -> Gradients:
    """Return the mean of the gradients of several micro-batches.

    With weights w and means L over each micro-batch, the mean over all samples is
    ``sum(w * L) / sum(w)``; gradients and metrics follow the same formula.

    ``watch`` copies parameters and batches in the first steps, to see whether the forward writes to
    them, or the loss keeps them.
    """
    given, model = state["params"], fixed.model
    watched = model.writes.suspects(given, fixed.trainable) if watch else set()
    own = {**state, "params": model.writes.owned(given, watched)}
    lending = fixed.lending.begin_step() if watch else ALWAYS_COPIED
    if len(batches) == 1:
        lent = lending.lend(batches[0], next(iter(given.values())).device)
        found = by_recipe(gradient, fixed)(inputs_of(fixed, own, lent.batch))
        lent.check_writes()
        found = unscaled(found, scale_of(state))
    else:
        found = _mean_of_parts(Parts(gradient, fixed, own, seed, lending), batches)
    require_dependence(found.grads)
    if watch:
        lending.steps += 1
    if watched:
        found = found._replace(params=model.writes.settled(given, found.params, watched))
    if watch and model.attributes.left:
        device = state["skipped"].device
        warn_of_memory(fixed, found.params, state["buffers"], batches[0], device)
    return found


def by_recipe(gradient: GradientFunction, fixed: StaticParts) -> GradientFunction:
    """Return the gradient function of a program, which may be sharpness-aware."""
    sharpness = fixed.recipe.sharpness
    return gradient if sharpness is None else sharpness.around(gradient)


def unscaled(found: Gradients, scale: Tensor | None) -> Gradients:
    """Return gradients without fp16's factor."""
    if scale is None:
        return found
    each = found.grads.items()
    return found._replace(grads={p: divide(widened(grad), scale, grad.dtype) for p, grad in each})


def divide(total: Tensor, divisor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a gradient in its own ``dtype``, from one that is :func:`widened`."""
    return (total / divisor.to(total.dtype)).to(dtype)


def _mean_of_parts(parts: Parts, batches: list[Batch]) -> Gradients:
    fixed, params, buffers = parts.fixed, parts.state["params"], parts.state["buffers"]
    found = parts.sums(batches, len(batches))
    loss_output, total = mean_loss_output(found.loss_outputs, found.weights), found.sums[0]
    divisor = scaled(torch.stack(found.weights).sum(), scale_of(parts.state))
    # A backward pass finds them in its own order, and a norm depends on the order.
    paths = [path for path in fixed.trainable if path in total]
    grads = {path: divide(total.pop(path), divisor, params[path].dtype) for path in paths}
    statistics = statistics_after(composable(fixed.model.statistics), buffers, found.buffers)
    norm = block_norm(list(grads.values())) if grads else None
    return Gradients(grads, params, {**found.buffers[-1], **statistics}, loss_output, norm)


def mean_loss_output(loss_outputs: list[LossOutput], each: list[Tensor]) -> LossOutput:
    """Return the loss output of a step from those of its parts and their weights."""
    weights, names = torch.stack(each), loss_outputs[0].metrics.keys()
    if any(one.metrics.keys() != names for one in loss_outputs):
        raise LossError("every micro-batch of a step must report the same metrics")

    def mean(values: list[Any]) -> Any:
        if not all(isinstance(value, Tensor) for value in values):
            return merged(values)
        # The mean over no tokens is NaN, and none of them counts.
        weighed = (torch.stack(values) * weights).masked_fill(weights == 0, 0)
        return weighed.sum() / weights.sum()

    metrics = {name: mean([one.metrics[name] for one in loss_outputs]) for name in names}
    return LossOutput(mean([one.value for one in loss_outputs]), weights.sum(), metrics)


class PartSums(NamedTuple):
    """The results of consecutive parts of a step.

    Attributes:
        sums: weighted gradients by path, one for each of :func:`nodes`.
        buffers: after each part.
    """

    sums: list[Tensors]
    loss_outputs: list[LossOutput]
    weights: list[Tensor]
    buffers: list[Tensors]


@attrs.frozen(eq=False)
class Parts:
    """Takes the gradients of the parts of a step.

    Attributes:
        state: before the step.
        seed: of the step; ``None`` uses torch's generators as they are.
        lending: lends batches to the loss, or copies of them.
    """

    gradient: GradientFunction
    fixed: StaticParts
    state: dict[str, Any]
    seed: int | None
    lending: BatchLending = ALWAYS_COPIED

    def gradients(self, number: int, batch: Batch, buffers: Tensors) -> Gradients:
        """Return the gradients of part ``number``, in a random stream of its own."""
        fixed, device = self.fixed, next(iter(self.state["params"].values())).device
        own = restarted(composable(fixed.model.statistics), buffers, self.state["buffers"])
        gradient = by_recipe(self.gradient, fixed)

        def compute() -> Gradients:
            lent = self.lending.lend(batch, device)
            found = gradient(inputs_of(fixed, {**self.state, "buffers": own}, lent.batch))
            lent.check_writes()
            return found

        if self.seed is None:
            return compute()
        stream = part_stream(self.seed, number)
        with scoped(stream, device, draws=fixed.draws):
            found = compute()
            refuse_system_seed(stream, compute)
        return found

    def sums(
        self, batches: Sequence[Batch], parts: int, start: int = 0, passed: bool = True
    ) -> PartSums:
        """Sum the weighted gradients of consecutive parts of the step, as far as they reach.

        No more sums are in memory at a time than the tree has levels. The batches are the parts
        from ``start`` on, of ``parts``. Buffers are ``passed`` from one part to the next where all
        begin in one process.
        """
        found = PartSums([], [], [], [])

        def add_part(number: int, total: Tensors) -> None:
            before = found.buffers[-1] if passed and found.buffers else self.state["buffers"]
            batch = batches[number - start]
            grads, _, after, loss_output, _ = self.gradients(number, batch, before)
            weight = loss_output.weight_of(batch)
            is_nothing = weight == 0
            for path, grad in grads.items():
                wide = widened(grad)
                # As in the mean of the loss, the NaN of a part without tokens does not count.
                _add(total, path, (wide * weight.to(wide.dtype)).masked_fill_(is_nothing, 0))
            found.loss_outputs.append(loss_output)
            found.weights.append(weight)
            found.buffers.append(after)

        for node in nodes(parts, start, start + len(batches)):
            found.sums.append({})
            add_node(node, found.sums[-1], add_part)
        return found


def add_node(node: Node, total: Tensors, add_part: Callable[[int, Tensors], None]) -> None:
    """Add the parts of a node to a total, in their order; an empty total becomes their sum."""
    number, stop = node
    if stop - number == 1:
        add_part(number, total)
        return
    own: Tensors = {} if total else total
    for half in halves(node):
        add_node(half, own, add_part)
    if own is not total:
        for path, grad in own.items():
            _add(total, path, grad)


def _add(total: Tensors, path: str, grad: Tensor) -> None:
    total[path] = total[path].add_(grad) if path in total else grad


def part_stream(seed: int, number: int) -> int:
    """Return the seed of a part's random stream; that of the first is the step's own."""
    return derive(seed, "part", number) if number else seed


def nodes(parts: int, start: int, stop: int) -> list[Node]:
    """Return the largest subtrees over parts from ``start`` to ``stop``, in order.

    These are the sums that can be formed without any other part.

    Example:
        >>> nodes(8, 2, 7)
        [(2, 4), (4, 6), (6, 7)]
    """
    found, waiting = [], [(0, parts)]
    while waiting:
        node = waiting.pop()
        if start <= node[0] and node[1] <= stop:
            found.append(node)
        elif start < node[1] and node[0] < stop:
            waiting += reversed(halves(node))
    return found


def halves(node: Node) -> tuple[Node, Node]:
    """Return the two sums that a sum consists of."""
    middle = sum(node) // 2
    return (node[0], middle), (middle, node[1])
