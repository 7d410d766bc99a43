"""A step of several micro-batches: a graph that each of them goes through, and one that updates.

In one graph they would be written out one after another: compiling would take as many times as
long, and another number of them would be another graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core import step
from functrain.core.accumulation import by_recipe, divide, mean_loss_output, part_stream
from functrain.core.batch_lending import copied
from functrain.core.gradients import Gradients as StepGradients
from functrain.core.gradients import by_autograd, inputs_of, require_dependence, scaled
from functrain.core.loss import LossOutput, computed
from functrain.core.precision import widened
from functrain.core.recipe import StaticParts
from functrain.core.rng import scoped
from functrain.transforms.graph.capture import Captured, capture
from functrain.transforms.graph.inputs import Form, alike, builder, flatten, form, with_tensors
from functrain.transforms.graph.lowering import Lowering
from functrain.transforms.graph.train_step import (
    BeforeWrite,
    Graph,
    Run,
    WriteRecorder,
    capture_with_copies,
    write,
    written_over,
)
from functrain.tree.nodes import copy

_RETURNED = (Tensor, bool, int, float, str, type(None))  # what a metric may consist of
# Takes a tree like the one a graph was captured with, and returns one.
Call = Callable[[Any], dict[str, Any]]


@attrs.frozen(eq=False)
class Gradients:
    """The graph of one micro-batch: it adds its gradients to sums, and returns its loss output.

    Attributes:
        call: takes ``params, buffers, total, scale, batch``; writes to buffers, total, and the
            parameters that the forward writes to.
        draws: whether random numbers are drawn.
        paths: of the parameters that have gradients.
        dtype: of loss and weight together.
    """

    call: Call
    draws: bool
    paths: frozenset[str]
    dtype: torch.dtype


@attrs.frozen(eq=False)
class Update:
    """The graph of what follows: it writes to the state, and returns outputs and scalars.

    Attributes:
        call: takes ``state, after, written, total, loss, divisor, rest``; ``after`` are the new
            buffers, ``written`` the parameters that the forward wrote to.
        draws: whether random numbers are drawn.
    """

    call: Call
    draws: bool


class Kind(NamedTuple):
    """The cases that one graph of an update fits.

    Attributes:
        trained: the paths that have gradients.
        written: those that the forward writes to.
    """

    form: int
    trained: tuple[str, ...]
    written: tuple[str, ...]
    dtype: torch.dtype


@attrs.frozen(eq=False)
class Parts:
    """The graphs of parts of steps, which steps of other numbers of micro-batches share.

    Attributes:
        gradients: by the forms of weights and micro-batch; ``None`` where its metrics are no trees
            of tensors, which a graph could return.
        updates: by what they are for.
    """

    fixed: StaticParts
    lowering: Lowering
    gradients: dict[tuple[Form, Form], Gradients | None] = attrs.field(factory=dict, init=False)
    updates: dict[Kind, Update] = attrs.field(factory=dict, init=False)

    def assembled(
        self, number: int, state: step.DeviceState, inputs: dict[str, Any]
    ) -> Graph | None:
        """Return a step for such inputs; ``None`` if it must be one graph.

        ``number`` is that of the form of the state, which has ``params, buffers, optimizer, ema``
        and is not changed here; the inputs are ``batches, lr, ema_due`` and ``scalars``.
        """
        found = [self._gradients(state, inputs, batch) for batch in inputs["batches"]]
        each = [part for part in found if part is not None]
        if len(each) < len(found):
            return None
        used = frozenset[str]().union(*(part.paths for part in each))
        paths = tuple(path for path in self.fixed.trainable if path in used)
        require_dependence(paths)
        dtype = functools.reduce(torch.promote_types, (part.dtype for part in each))
        kind = Kind(number, paths, tuple(sorted(self.fixed.model.writes.paths)), dtype)
        update = self._update(kind, state, inputs)
        draws = update.draws or any(part.draws for part in each)
        return Graph(self._in_turn(each, update, kind, builder([state, inputs])), draws)

    def _gradients(
        self, state: step.DeviceState, inputs: dict[str, Any], batch: Any
    ) -> Gradients | None:
        key = (form([state["params"], state["buffers"], _scale(inputs)]), form(batch))
        if key not in self.gradients:
            given = {**self._sums(state), "scale": _scale(inputs), "batch": batch}
            self.gradients[key] = captured_gradients(self.fixed, self.lowering, given)
        return self.gradients[key]

    def _update(self, kind: Kind, state: step.DeviceState, inputs: dict[str, Any]) -> Update:
        if kind not in self.updates:
            number = inputs["scalars"]["skipped"].new_zeros((), dtype=kind.dtype)
            given = _given(kind, state, self._sums(state), number, number, inputs)
            self.updates[kind] = captured_update(self.fixed, self.lowering, given)
        return self.updates[kind]

    def _sums(self, state: step.DeviceState) -> dict[str, Any]:
        """Return sums without gradients yet, and copies of tensors that a forward writes to."""
        trainable = {path: state["params"][path] for path in self.fixed.trainable}
        return {
            "params": self.fixed.model.writes.owned(state["params"]),
            "total": {path: widened(torch.zeros_like(param)) for path, param in trainable.items()},
            "buffers": {path: buffer.clone() for path, buffer in state["buffers"].items()},
        }

    def _in_turn(
        self,
        each: list[Gradients],
        update: Update,
        kind: Kind,
        build: Callable[[Any], Any],
    ) -> Run:
        def run(
            leaves: list[Tensor], before_write: BeforeWrite, seed: int | None
        ) -> tuple[step.DeviceState, step.Outputs]:
            state, inputs = build(iter(leaves))
            sums, scale = self._sums(state), _scale(inputs)
            found = []
            for number, (part, batch) in enumerate(zip(each, inputs["batches"], strict=True)):
                with _stream(self.fixed, part, seed, number, inputs):
                    found.append(part.call({**sums, "scale": scale, "batch": batch}))
            loss_outputs = [LossOutput(one["loss"], None, one["metrics"]) for one in found]
            weights = [one["weight"] for one in found]
            mean = mean_loss_output(loss_outputs, weights)
            metrics = computed(mean.metrics, mean.value.device)
            loss = mean.value.to(kind.dtype)
            divisor = scaled(torch.stack(weights).sum(), scale).to(kind.dtype)
            before_write()
            done = update.call(_given(kind, state, sums, loss, divisor, inputs))
            return done["scalars"], {**done["outputs"], "loss": mean.value, "metrics": metrics}

        return run


def _stream(
    fixed: StaticParts, part: Gradients, seed: int | None, number: int, inputs: dict[str, Any]
) -> AbstractContextManager[object]:
    """Return the scope in which a micro-batch draws its random numbers."""
    if seed is None or not part.draws:
        return nullcontext()
    return scoped(part_stream(seed, number), inputs["scalars"]["skipped"].device, draws=fixed.draws)


def _scale(inputs: dict[str, Any]) -> Tensor | None:
    loss_scale = inputs["scalars"]["loss_scale"]
    return None if loss_scale is None else loss_scale["scale"]


def _given(
    kind: Kind,
    state: step.DeviceState,
    sums: dict[str, Any],
    loss: Tensor,
    divisor: Tensor,
    inputs: dict[str, Any],
) -> dict[str, Any]:
    """Return the inputs of the update."""
    return {
        "state": state,
        "after": sums["buffers"],
        "written": {path: sums["params"][path] for path in kind.written},
        "total": {path: sums["total"][path] for path in kind.trained},
        "loss": loss,
        "divisor": divisor,
        "rest": {name: value for name, value in inputs.items() if name != "batches"},
    }


def captured_gradients(
    fixed: StaticParts, lowering: Lowering, given: dict[str, Any]
) -> Gradients | None:
    """Return the graph of a micro-batch; ``None`` where no graph can return its metrics."""
    seen: dict[str, Any] = {}

    def function(tensors: list[Tensor]) -> dict[str, Any]:
        own = with_tensors(given, iter(tensors))
        total, buffers = own["total"], own["buffers"]
        loss_scale = None if own["scale"] is None else {"scale": own["scale"]}
        params = fixed.model.writes.owned(own["params"])
        state = {"params": params, "buffers": buffers, "loss_scale": loss_scale}
        batch = copied(own["batch"], next(iter(params.values())).device)
        inputs = inputs_of(fixed, state, batch)
        with WriteRecorder(own["params"], fixed.model.writes):
            grads, params, after, loss_output, _ = by_recipe(by_autograd, fixed)(inputs)
        weight = loss_output.weight_of(batch)
        added = {
            path: total[path].addcmul(widened(grad), weight.to(total[path].dtype))
            for path, grad in grads.items()
        }
        old = [{path: total[path] for path in grads}, buffers, own["params"]]
        write(old, [added, after, params])
        seen["paths"] = frozenset(grads)
        seen["dtype"] = torch.promote_types(loss_output.value.dtype, weight.dtype)
        leaves = [leaf for _, leaf in tree.items(loss_output.metrics)]
        seen["returned"] = all(isinstance(leaf, _RETURNED) for leaf in leaves)
        # They may be parts of what is written to.
        metrics = copy(loss_output.metrics) if seen["returned"] else {}
        return {"loss": loss_output.value, "weight": weight, "metrics": metrics}

    made = functools.partial(capture, function, flatten(given), fixed.model.module)
    captured = capture_with_copies(made, fixed.model.writes)
    if not seen["returned"]:
        return None
    call = _lowered(lowering, captured, given)
    return Gradients(call, captured.draws, seen["paths"], seen["dtype"])


def captured_update(fixed: StaticParts, lowering: Lowering, given: dict[str, Any]) -> Update:
    """Return the graph of what follows the gradients (see :func:`captured_gradients`)."""

    def function(tensors: list[Tensor]) -> dict[str, Any]:
        own = with_tensors(given, iter(tensors))
        state, scalars = own["state"], own["rest"]["scalars"]
        divisor, old = own["divisor"], state["params"]
        grads = {
            path: divide(total, divisor, old[path].dtype) for path, total in own["total"].items()
        }
        params = {**old, **own["written"]}
        found = StepGradients(grads, params, own["after"], LossOutput(own["loss"], None, {}))
        device_step = step.DeviceStep(step.by_rule(lambda *_: found), fixed)
        rates = own["rest"]["lr"], own["rest"]["ema_due"]
        new, outputs = device_step({**state, **scalars}, [], *rates)
        return written_over(state, new, scalars, outputs)

    captured = capture(function, flatten(given), fixed.model.module)
    return Update(_lowered(lowering, captured, given), captured.draws)


def _lowered(lowering: Lowering, captured: Captured, given: dict[str, Any]) -> Call:
    call = lowering.compile(captured.graph, list(map(alike, flatten(given))))
    build = builder(captured.returned)

    def run(tree_of_tensors: Any) -> dict[str, Any]:
        found: dict[str, Any] = build(iter(call(*flatten(tree_of_tensors))))
        return found

    return run
