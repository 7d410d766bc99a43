"""The gradients of a step whose parts are computed by several ranks.

Each rank takes the gradients of its own parts. Loss, metrics and buffers of all parts are then
gathered and combined in the same way on every rank; gradients are summed by rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core import clipping
from functrain.core.accumulation import (
    Part,
    PartSums,
    StepGradients,
    differentiation,
    mean_outcome,
    part_sums,
    require_gradients,
    step_gradients,
)
from functrain.core.batch_parts import BatchParts
from functrain.core.buffers import BufferRule
from functrain.core.gradients import by_autograd
from functrain.core.recipe import Fixed
from functrain.core.state import Tensors
from functrain.distributed.agreement import Facts, agreed, facts_of
from functrain.distributed.gathering import buffers_of, combined, first_of, outcomes_of, table_of
from functrain.distributed.group import World
from functrain.distributed.placed import Placed
from functrain.errors import UnsupportedError


@attrs.frozen(eq=False)
class ShardedGradients:
    """Takes the gradients of a step on all ranks together.

    Attributes:
        fixed: of the program.
        world: all ranks.
        placed: the places of the tensors.
        rules: how buffers are combined, by pattern.
    """

    fixed: Fixed
    world: World
    placed: Placed
    rules: Mapping[str, BufferRule]

    def __call__(
        self,
        state: dict[str, Any],
        batch: BatchParts,
        donated: bool = False,
        seed: int | None = None,
    ) -> StepGradients:
        """Return this rank's rows of the mean of the gradients; see ``step_gradients``.

        Args:
            state: ``params``, ``buffers`` and ``loss_scale``, as tensors of this rank.
            batch: the parts of this rank.
            donated: whether the step may write to the trained parameters afterwards.
            seed: of the step's random stream.
        """
        if self.fixed.recipe.parts == 1:
            own = list(batch.parts.values())
            return step_gradients(by_autograd, self.fixed, state, own, donated, seed, watch=True)
        params = self._whole(state["params"])
        scale = None if state["loss_scale"] is None else state["loss_scale"]["scale"]
        found = self._own(params, state["buffers"], batch, scale, seed)
        facts = agreed(self.world, facts_of(found, state["buffers"]), _described(batch))
        paths = [path for path in self.fixed.trainable if path in facts.present]
        require_gradients(self.fixed, paths)
        alone = len(batch.sizes) == 1
        table = self._table(found, facts, batch, next(iter(params.values())))
        outcomes, weights = outcomes_of(self.world, found.outcomes, facts, table[:, 1:])
        grads = self._summed(found.sums, {path: params[path] for path in paths}, batch.bounds)
        if alone:
            outcome, norm = outcomes[0], table[0, 0].to(clipping.norm_dtype(grads.values()))
        else:
            outcome, divisor = mean_outcome(outcomes, weights, scale)
            for grad in grads.values():
                grad.div_(divisor.to(grad.dtype))
            norm = self._norm(grads, params)
        buffers = self._buffers(state["buffers"], found.buffers, facts, batch.bounds)
        return StepGradients(grads, state["params"], buffers, outcome, norm)

    def _own(
        self,
        given: Tensors,
        buffers: Tensors,
        batch: BatchParts,
        scale: Tensor | None,
        seed: int | None,
    ) -> PartSums:
        """Take the gradients of the parts of this rank."""
        if not batch.parts:
            return PartSums([], [], [], [])
        fixed, writes, parts = self.fixed, self.fixed.model.writes, len(batch.sizes)
        watched = writes.suspects(given, fixed.trainable, donated=False)
        params = writes.owned(given, watched)
        device = next(iter(params.values())).device
        of_batch = differentiation(fixed, by_autograd, params, device)
        part, own = Part(fixed, of_batch, device, scale, seed), list(batch.parts.values())
        if parts > 1:
            found = part_sums(part, buffers, own, parts, min(batch.parts), passed=False)
        else:
            grads, after, outcome = part.gradients(0, buffers, own[0], None)
            if scale is not None:
                grads = {path: grad / scale.to(grad.dtype) for path, grad in grads.items()}
            ordered = {path: grads[path] for path in fixed.trainable if path in grads}
            found = PartSums([ordered], [outcome], [torch.ones((), device=device)], [after])
        if watched:
            writes.notice(given, params)
        if writes.paths:
            raise UnsupportedError(
                f"the forward writes to the parameters {sorted(writes.paths)[:5]}, and the parts "
                "of a step cannot agree on their values. Make them buffers, or train without "
                "functrain.sharded"
            )
        return found

    def _table(self, found: PartSums, facts: Facts, batch: BatchParts, like: Tensor) -> Tensor:
        """Return norm, loss, weight and metrics of each part.

        The norm is that of a step of one part. Only its rank has all gradients, in torch's order.
        """
        names = [name for name, dtype in facts.metrics if dtype is not None]
        norm = like.new_zeros((), dtype=torch.float64)
        if len(batch.sizes) == 1 and found.sums:
            flat = list(found.sums[0].values())
            norm = clipping.torch_norm(flat, self.fixed.recipe.clip_norm) if flat else norm
        own = [
            [norm, outcome.value, weight, *(outcome.metrics[name] for name in names)]
            for outcome, weight in zip(found.outcomes, found.weights, strict=True)
        ]
        return table_of(self.placed.exchange, own, 3 + len(names), batch.bounds, like)

    def _whole(self, params: Tensors) -> Tensors:
        """Return all parameters; those that are cut are gathered."""
        found = dict(params)
        for division in by_dtype(self.placed.rows_of("params"), params):
            found.update(self.placed.exchange.whole(params, division))
        return found

    def _summed(self, sums: Sequence[Tensors], params: Tensors, bounds: Sequence[int]) -> Tensors:
        """Return the sum of the gradients over all parts: of this rank's rows, or whole."""
        filled = [{path: _filled(one, path, params) for path in params} for one in sums]
        found: Tensors = {}
        exchange, updated = self.placed.exchange, self.placed.updated
        cut = {path: updated[path] for path in params if path in updated}
        kept = {path: leaf.shape for path, leaf in params.items() if path not in updated}
        for division in by_dtype(cut, params):
            like = params[next(iter(division))]
            found.update(exchange.rows_of_sum(filled, bounds, division, like))
        for shapes in by_dtype(kept, params):
            like = params[next(iter(shapes))]
            found.update(exchange.whole_sum(filled, bounds, shapes, like))
        return {path: _with_strides(found[path], leaf) for path, leaf in params.items()}

    def _norm(self, grads: Tensors, params: Tensors) -> Tensor:
        """Return the norm by blocks, which is the same for any division of the rows."""
        blocks = {path: clipping.block_size(params[path].shape) for path in grads}
        sums = {path: clipping.block_sums(grad, blocks[path]) for path, grad in grads.items()}
        cut = [path for path in grads if path in self.placed.updated]
        if cut:
            sums.update(self._gathered_sums({path: sums[path] for path in cut}, blocks))
        return clipping.norm_of_sums(sums.values(), clipping.norm_dtype(grads.values()))

    def _gathered_sums(self, own: Tensors, blocks: Mapping[str, int]) -> Tensors:
        exchange, lengths = self.placed.exchange, []
        for rank in range(exchange.ranks):
            shapes = [self.placed.updated[path].shape_on(rank) for path in own]
            lengths.append(
                [-(-math.prod(s) // blocks[p]) for p, s in zip(own, shapes, strict=True)]
            )
        pieces = exchange.all_pieces(torch.cat(list(own.values())), list(map(sum, lengths)))
        by_rank = [torch.split(piece, one) for piece, one in zip(pieces, lengths, strict=True)]
        return {p: torch.cat(one) for p, one in zip(own, zip(*by_rank, strict=True), strict=True)}

    def _buffers(
        self, before: Tensors, own: Sequence[Tensors], facts: Facts, bounds: Sequence[int]
    ) -> Tensors:
        found = before
        changed = [path for path in before if path in facts.changed - facts.reshaped]
        if changed:
            each = buffers_of(self.placed.exchange, before, own, changed, bounds)
            found = combined(self.fixed.model.statistics, self.rules, before, each)
        reshaped = [path for path in before if path in facts.reshaped]
        if reshaped:
            found = {**found, **first_of(self.world, self.rules, own, reshaped, bounds)}
        copied = {path: one.clone() for path, one in found.items() if one is before[path]}
        return {path: copied.get(path, found[path]) for path in before}


def _described(batch: BatchParts) -> str:
    """Return what must be the same on every rank."""
    return f"{batch.samples} samples in parts of {list(batch.sizes)}, data {batch.digest:#x}"


def _filled(sums: Tensors, path: str, params: Tensors) -> Tensor:
    # Adding a negative zero changes no number, not even the sign of another zero.
    if path in sums:
        return sums[path]
    zero = complex(-0.0, -0.0) if params[path].is_complex() else -0.0
    return torch.full_like(params[path], zero)


def _with_strides(grad: Tensor, leaf: Tensor) -> Tensor:
    """Return a gradient with the strides of its parameter, as a backward pass would."""
    if leaf.is_contiguous() or grad.shape != leaf.shape:
        return grad
    return torch.empty_like(leaf, requires_grad=False).copy_(grad)


def by_dtype(shapes: Mapping[str, Any], params: Tensors) -> Iterator[dict[str, Any]]:
    """Give the shapes of the parameters of each dtype."""
    dtypes = dict.fromkeys(params[path].dtype for path in shapes)
    for dtype in dtypes:
        yield {path: shape for path, shape in shapes.items() if params[path].dtype is dtype}
