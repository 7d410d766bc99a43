"""The gradients of a step whose parts are computed by several ranks.

Each rank takes the gradients of its own parts, and adds up its share of the elements of all of
them. The results are then gathered, and combined in the same way on every rank.

The host waits for messages of other hosts, but not for the values of its own device, except to see
which buffers have changed.
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
    Parts,
    PartSums,
    divide,
    mean_loss_output,
    step_gradients,
    unscaled,
)
from functrain.core.gradients import (
    Gradients,
    by_autograd,
    require_dependence,
    scale_of,
    scaled,
)
from functrain.core.loss import LossOutput
from functrain.core.recipe import StaticParts
from functrain.core.state import Tensors
from functrain.data.batch_parts import BatchParts
from functrain.distributed.buckets import Layout
from functrain.distributed.buffers import BufferRule, combined, first_of
from functrain.distributed.group import World
from functrain.distributed.placed import Placed
from functrain.distributed.results import Gathering, loss_outputs_of
from functrain.distributed.step_facts import Comparison, Facts, agreed, facts_of
from functrain.distributed.sums import Sums
from functrain.errors import UnsupportedError


@attrs.frozen(eq=False)
class ShardedGradients:
    """Takes the gradients of a step on all ranks together."""

    fixed: StaticParts
    world: World
    placed: Placed
    rules: Mapping[str, BufferRule]
    layout: Layout = attrs.field(init=False)

    @layout.default
    def _usual_layout(self) -> Layout:
        return self._layout_of(self.fixed.model.params)

    def __call__(
        self,
        state: dict[str, Any],
        batch: BatchParts,
        seed: int | None = None,
    ) -> Gradients:
        """Return this rank's rows of the mean of the gradients; see ``step_gradients``."""
        if self.fixed.recipe.parts == 1:
            own = list(batch.parts.values())
            return step_gradients(by_autograd, self.fixed, state, own, seed, watch=True)
        if self.world.size == 1:
            return self._alone(state, batch, seed)
        exchange, before = self.placed.exchange, state["buffers"]
        text = _described(batch)
        alike = Comparison.start(exchange, text)  # travels while the gradients are computed
        params = self._whole(state["params"])
        layout = self.layout if self.layout.fits(params) else self._layout_of(params)
        gathering = Gathering(exchange, layout, batch.bounds, next(iter(params.values())))
        found = self._own(params, state, batch, seed)
        if not alike.alike():  # ranks make different steps
            self.world.require_equal({"step": text})
        sums = Sums(exchange, layout.buckets, batch.bounds, gathering.like)
        sums.send(found.sums)
        facts, heads = self._agreed(gathering, found, before)
        require_dependence(facts.present)
        results = gathering.results(found, sums, facts, heads, before, scale_of(state))
        loss_outputs, weights = loss_outputs_of(
            self.world, found.loss_outputs, facts, results.table
        )
        paths = [path for path in self.fixed.trainable if path in facts.present]
        grads = {path: _with_strides(results.grads[path], params[path]) for path in paths}
        buffers = self._buffers(before, results.buffers, found, facts, batch.bounds)
        loss_output = _mean(loss_outputs, weights)
        return Gradients(grads, state["params"], buffers, loss_output, results.norm)

    def _alone(self, state: dict[str, Any], batch: BatchParts, seed: int | None) -> Gradients:
        """Take the gradients of all parts in this process."""
        before = state["buffers"]
        found = self._own(state["params"], state, batch, seed)
        facts = facts_of(found, before)
        assert facts is not None, "a step has at least one part"
        require_dependence(facts.present)
        sums = found.sums[0]
        grads = {path: sums[path] for path in self.fixed.trainable if path in sums}
        norm = self._torch_norm(found, len(batch.sizes))
        if norm is None:
            divisor = scaled(torch.stack(found.weights).sum(), scale_of(state))
            dtypes = {path: state["params"][path].dtype for path in grads}
            grads = {path: divide(grad, divisor, dtypes[path]) for path, grad in grads.items()}
            norm = clipping.block_norm(list(grads.values()))
        each = [{path: one[path] for path in facts.rewritten(before)} for one in found.buffers]
        buffers = self._buffers(before, each, found, facts, batch.bounds)
        loss_output = _mean(found.loss_outputs, found.weights)
        return Gradients(grads, state["params"], buffers, loss_output, norm)

    def _agreed(
        self, gathering: Gathering, found: PartSums, before: Tensors
    ) -> tuple[Facts, Tensor]:
        """Return the facts about all parts, and norm, loss and weight of each."""
        own = facts_of(found, before)
        comparison = Comparison.start(self.placed.exchange, None if own is None else own.text)
        heads = gathering.heads(found, self._torch_norm(found, gathering.bounds[-1]))
        return agreed(self.world, own, comparison), heads

    def _torch_norm(self, found: PartSums, parts: int) -> Tensor | None:
        """Return the norm of a step of one part. Only its rank has all gradients in their order."""
        if parts > 1 or not found.sums or not found.sums[0]:
            return None
        return clipping.torch_norm(list(found.sums[0].values()), self.fixed.recipe.clip_norm)

    def _own(
        self, given: Tensors, state: dict[str, Any], batch: BatchParts, seed: int | None
    ) -> PartSums:
        """Take the gradients of the parts of this rank."""
        if not batch.parts:
            return PartSums([], [], [], [])
        fixed, writes = self.fixed, self.fixed.model.writes
        watched = writes.suspects(given, fixed.trainable)
        params = writes.owned(given, watched)
        parts = Parts(by_autograd, fixed, {**state, "params": params}, seed)
        own, count = list(batch.parts.values()), len(batch.sizes)
        if count > 1:
            found = parts.sums(own, count, min(batch.parts), passed=False)
        else:
            alone = unscaled(parts.gradients(0, own[0], state["buffers"]), scale_of(state))
            grads = {path: alone.grads[path] for path in fixed.trainable if path in alone.grads}
            one = torch.ones_like(alone.loss_output.value, dtype=torch.float32)
            found = PartSums([grads], [alone.loss_output], [one], [alone.buffers])
        if watched:
            writes.settled(given, params, watched)
        if writes.paths:
            raise UnsupportedError(
                f"the forward writes to the parameters {sorted(writes.paths)[:5]}, and the parts "
                "of a step cannot agree on their values. Make them buffers, or train without "
                "functrain.sharded"
            )
        return found

    def _whole(self, params: Tensors) -> Tensors:
        """Return all parameters; those that are cut are gathered."""
        found = dict(params)
        for division in by_dtype(self.placed.rows_of("params"), params):
            found.update(self.placed.exchange.whole(params, division))
        return found

    def _layout_of(self, params: Tensors) -> Layout:
        trained, ranks = {path: params[path] for path in self.fixed.trainable}, self.world.size
        cuts = {
            path: tuple(bound * math.prod(rows.shape[1:]) for bound in rows.bounds)
            for path, rows in self.placed.updated.items()
        }
        return Layout.of(trained, cuts, ranks)

    def _buffers(
        self,
        before: Tensors,
        each: Sequence[Tensors],
        found: PartSums,
        facts: Facts,
        bounds: Sequence[int],
    ) -> Tensors:
        """Return the buffers after the step."""
        after = before
        if each and each[0]:
            after = combined(self.fixed.model.statistics, self.rules, before, each)
        reshaped = [path for path in before if path in facts.reshaped]
        if reshaped:
            first = first_of(self.world, self.rules, found.buffers, reshaped, bounds)
            after = {**after, **first}
        copied = {path: one.clone() for path, one in after.items() if one is before[path]}
        return {path: copied.get(path, after[path]) for path in before}


def _mean(loss_outputs: list[LossOutput], weights: list[Tensor]) -> LossOutput:
    return loss_outputs[0] if len(loss_outputs) == 1 else mean_loss_output(loss_outputs, weights)


def _described(batch: BatchParts) -> str:
    """Return what must be the same on every rank."""
    return f"{batch.samples} samples in parts of {list(batch.sizes)}, data {batch.digest:#x}"


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
