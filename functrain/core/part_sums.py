"""The parts of a step: the gradients of each, and their sums.

A part is a micro-batch of an accumulating program, or the share of a batch that one of several
processes computes. Each has a random stream of its own, and their sum has the order of a tree
(``core/order.py``), so the result does not depend on which process computes which part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from functrain.core import order
from functrain.core.batch import Batch, copied
from functrain.core.buffers import restarted
from functrain.core.gradients import GradientFunction, Gradients, Request
from functrain.core.loss import LossOutput, evaluate
from functrain.core.metrics import merged
from functrain.core.precision import widened
from functrain.core.recipe import StaticParts
from functrain.core.rng import derive, refuse_system_seed, scoped
from functrain.core.state import Tensors
from functrain.errors import LossError


class PartSums(NamedTuple):
    """The results of consecutive parts of a step.

    Attributes:
        sums: weighted gradients by path, one for each of :func:`order.nodes`.
        buffers: after each part.
    """

    sums: list[Tensors]
    loss_outputs: list[LossOutput]
    weights: list[Tensor]
    buffers: list[Tensors]


@attrs.frozen(eq=False)
class Part:
    """Takes the gradients of one part of a step.

    Attributes:
        scale: fp16's factor on the loss.
        seed: of the step; ``None`` uses torch's generators as they are.
    """

    fixed: StaticParts
    gradient: GradientFunction
    params: Tensors
    device: torch.device
    scale: Tensor | None
    seed: int | None

    @classmethod
    def of(
        cls,
        gradient: GradientFunction,
        fixed: StaticParts,
        params: Tensors,
        scale: Tensor | None,
        seed: int | None = None,
    ) -> Part:
        """Return what takes the gradients of all parts with respect to ``params``."""
        device = next(iter(params.values())).device
        if fixed.recipe.sharpness is not None:
            gradient = fixed.recipe.sharpness.around(gradient)
        return cls(fixed, gradient, params, device, scale, seed)

    def request(self, buffers: Tensors, batch: Batch) -> Request:
        """Ask for the gradients of a batch; the forward may write to it and the buffers."""
        recipe = self.fixed.recipe
        forward = functools.partial(
            evaluate, recipe.loss, device=self.device, precision=recipe.precision
        )
        model, paths = self.fixed.model, self.fixed.trainable
        return Request(model, forward, paths, self.params, buffers, batch, self.scale)

    def compute(self, buffers: Tensors, batch: Batch) -> Gradients:
        """Return the gradients of a batch; it and the buffers, of before, are not changed."""
        # The forward writes into the buffers it is given (BatchNorm does so unseen by autograd).
        own = {path: buffer.clone() for path, buffer in buffers.items()}
        # A copy also has its own alignment in memory, on which the last bits depend.
        return self.gradient(self.request(own, copied(batch, self.device)))

    def gradients(self, number: int, buffers: Tensors, batch: Batch) -> Gradients:
        """Return the same of part ``number``, in a random stream of its own."""
        compute = functools.partial(self.compute, buffers, batch)
        if self.seed is None:
            return compute()
        stream = part_stream(self.seed, number)
        with scoped(stream, self.device, draws=self.fixed.draws):
            found = compute()
            refuse_system_seed(stream, compute)
        return found

    def unscaled(self, found: Gradients) -> Gradients:
        """Return gradients without fp16's factor."""
        if self.scale is None:
            return found
        each = found.grads.items()
        grads = {path: divide(widened(grad), self.scale, grad.dtype) for path, grad in each}
        return found._replace(grads=grads)


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

    The batches are the parts from ``start`` on. Buffers are ``passed`` from one part to the next
    where all begin in one process. ``arrive`` is called with the sums and a path as soon as those
    of the leaf are complete.
    """
    found = PartSums([], [], [], [])
    complete = order.merges(parts, start, start + len(batches))
    for number, (batch, merges) in enumerate(zip(batches, complete, strict=True), start):
        if not merges:
            found.sums.append({})
        before = found.buffers[-1] if passed and found.buffers else buffers
        own = restarted(part.fixed.model.statistics, before, buffers)
        last = number == start + len(batches) - 1 and merges < 2
        grads, after, loss_output = part.gradients(number, own, batch)
        weight = loss_output.weight_of(batch)
        _add(found.sums, arrive if last else None, weight, grads)
        del grads  # before the next ones are computed
        for _ in range(merges - 1):
            _merge(found.sums)
        found.loss_outputs.append(loss_output)
        found.weights.append(weight)
        found.buffers.append(after)
    return found


def mean_loss_output(
    loss_outputs: list[LossOutput], each: list[Tensor], loss_scale: Tensor | None
) -> tuple[LossOutput, Tensor]:
    """Return the loss output of several micro-batches, and the divisor for the sum of gradients."""
    weights, names = torch.stack(each), loss_outputs[0].metrics.keys()
    if any(loss_output.metrics.keys() != names for loss_output in loss_outputs):
        raise LossError("every micro-batch of a step must report the same metrics")

    def mean(values: list[Any]) -> Any:
        if not all(isinstance(value, Tensor) for value in values):
            return merged(values)
        # The mean over no tokens is NaN, and none of them counts.
        weighed = (torch.stack(values) * weights).masked_fill(weights == 0, 0)
        return weighed.sum() / weights.sum()

    metrics = {
        name: mean([loss_output.metrics[name] for loss_output in loss_outputs]) for name in names
    }
    value = mean([loss_output.value for loss_output in loss_outputs])
    return LossOutput(value, weights.sum(), metrics), divisor_of(each, loss_scale)


def divisor_of(weights: list[Tensor], loss_scale: Tensor | None) -> Tensor:
    """Return the divisor for the sum of the weighted gradients of several micro-batches."""
    total = torch.stack(weights).sum()
    return total if loss_scale is None else total * loss_scale


def divide(total: Tensor, divisor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a gradient in its own ``dtype``, from one that is :func:`widened`."""
    return (total / divisor.to(total.dtype)).to(dtype)


def _add(
    sums: list[Tensors],
    arrive: Callable[[Sequence[Tensors], str], None] | None,
    weight: Tensor,
    grads: Tensors,
) -> None:
    """Add gradients to the last sum."""
    total = sums[-1]
    for path, grad in grads.items():
        wide = widened(grad)
        weighted = wide * weight.to(wide.dtype)
        total[path] = total[path].add_(weighted) if path in total else weighted
        if arrive is not None:
            arrive(sums, path)


def _merge(sums: list[Tensors]) -> None:
    """Add the last sum to the one before it."""
    total = sums[-2]
    for path, grad in sums.pop().items():
        total[path] = total[path].add_(grad) if path in total else grad
