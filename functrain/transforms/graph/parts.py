"""The parts of a step as graphs of their own: the gradients of one micro-batch, and the update."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core import step
from functrain.core.accumulation import StepGradients
from functrain.core.batch import copied
from functrain.core.gradients import by_autograd
from functrain.core.loss import Outcome
from functrain.core.part_sums import differentiation
from functrain.core.recipe import Fixed
from functrain.transforms.graph.capture import Captured, capture
from functrain.transforms.graph.inputs import alike, builder, flatten, with_tensors
from functrain.transforms.graph.lowering import Lowering
from functrain.transforms.graph.missing_entries import MissingEntries, missing_entries
from functrain.transforms.graph.train_step import WriteRecorder, capture_with_copies, write
from functrain.tree.nodes import copy

_RETURNED = (Tensor, bool, int, float, str, type(None))  # what a metric may consist of
# Takes a tree like the one a graph was captured with, and returns one.
Call = Callable[[Any], dict[str, Any]]


@attrs.frozen(eq=False)
class Gradients:
    """The graph of one micro-batch: it adds its gradients to sums, and returns its outcome.

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


def captured_gradients(fixed: Fixed, lowering: Lowering, given: dict[str, Any]) -> Gradients | None:
    """Return the graph of a micro-batch; ``None`` where no graph can return its metrics."""
    seen: dict[str, Any] = {}

    def function(tensors: list[Tensor]) -> dict[str, Any]:
        own = with_tensors(given, iter(tensors))
        total, buffers = own["total"], own["buffers"]
        device = next(iter(own["params"].values())).device
        (batch,) = copied([own["batch"]], device)  # which a model may write to
        params = fixed.model.writes.owned(own["params"])
        of_batch = differentiation(fixed, by_autograd, params, device)
        spare = {path: buffer.clone() for path, buffer in buffers.items()}
        with WriteRecorder(own["params"], fixed.model.writes):
            grads, after, outcome = of_batch(spare, batch, own["scale"], None)
        weight = outcome.weight_of(batch)
        added = {
            path: total[path].addcmul(grad, weight.to(grad.dtype)) for path, grad in grads.items()
        }
        old = [{path: total[path] for path in grads}, buffers, own["params"]]
        write(old, [added, after, params])
        seen["paths"] = frozenset(grads)
        seen["dtype"] = torch.promote_types(outcome.value.dtype, weight.dtype)
        leaves = [leaf for _, leaf in tree.items(outcome.metrics)]
        seen["returned"] = all(isinstance(leaf, _RETURNED) for leaf in leaves)
        # They may be parts of what is written to.
        metrics = copy(outcome.metrics) if seen["returned"] else {}
        return {"loss": outcome.value, "weight": weight, "metrics": metrics}

    made = functools.partial(capture, function, flatten(given), fixed.model.module)
    captured = capture_with_copies(made, fixed.model.writes)
    if not seen["returned"]:
        return None
    call = _lowered(lowering, captured, given)
    return Gradients(call, captured.draws, seen["paths"], seen["dtype"])


def captured_update(
    fixed: Fixed, lowering: Lowering, given: dict[str, Any]
) -> Update | MissingEntries:
    """Return the graph of what follows the gradients (see :func:`captured_gradients`)."""
    missing: list[MissingEntries] = []

    def function(tensors: list[Tensor]) -> dict[str, Any]:
        own = with_tensors(given, iter(tensors))
        state, scalars = own["state"], own["rest"]["scalars"]
        divisor = own["divisor"]
        grads = {path: total / divisor.to(total.dtype) for path, total in own["total"].items()}
        params = {**state["params"], **own["written"]}
        found = StepGradients(grads, params, own["after"], Outcome(own["loss"], None, {}))
        execution, rates = (
            step.by_rule(lambda *_: found),
            (own["rest"]["lr"], own["rest"]["ema_due"]),
        )
        new, outputs = step.take_step(execution, fixed, {**state, **scalars}, [], *rates)
        if entries := missing_entries(state["optimizer"], new["optimizer"]):
            missing.append(entries)
            return {}
        write(state, {name: new[name] for name in state})
        return {"scalars": {name: new[name] for name in scalars}, "outputs": outputs}

    captured = capture(function, flatten(given), fixed.model.module)
    if missing:
        return missing[0]
    return Update(_lowered(lowering, captured, given), captured.draws)


def _lowered(lowering: Lowering, captured: Captured, given: dict[str, Any]) -> Call:
    call = lowering.compile(captured.graph, list(map(alike, flatten(given))))
    build = builder(captured.returned)

    def run(tree_of_tensors: Any) -> dict[str, Any]:
        found: dict[str, Any] = build(iter(call(*flatten(tree_of_tensors))))
        return found

    return run
