"""The device part of a step, as one graph for each form of state and batch."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core import step
from functrain.core.batch import Batch
from functrain.core.first_step import warn_of_memory
from functrain.core.precision import widest
from functrain.core.rng import scoped, without_autocast
from functrain.core.state import Donation
from functrain.errors import CaptureError, RecompileWarning
from functrain.errors.base import warn
from functrain.optim.update_counts import aligned
from functrain.transforms.graph.graph_step import WRITTEN, GraphStep, require_dense
from functrain.transforms.graph.inputs import flatten, given, scalar, with_tensors, writable
from functrain.transforms.graph.micro_batches import Parts
from functrain.transforms.graph.missing_entries import MissingEntriesError
from functrain.transforms.graph.train_step import Graph, captured_step
from functrain.tree.nodes import copy

_MANY = 8  # graphs of one program, after which it warns


@attrs.define(eq=False)
class RateCache:
    """Learning rates as tensors; one that stays is made once. No graph writes to its rates.

    Attributes:
        last: the rate seen last, and its tensor. They are one value: threads may share a program.
    """

    last: tuple[float, Tensor] | None = None

    def tensors(self, lr: Any, device: torch.device) -> Any:
        """Return a rate, or those of groups, as tensors."""
        if type(lr) is not float:
            return _made(lr, device)
        last = self.last
        # By identity: 0.0 and -0.0 are equal, but no two numbers are the same object.
        if last is None or last[0] is not lr or last[1].device != device:
            self.last = last = (lr, _made(lr, device))
        return last[1]


def _made(lr: Any, device: torch.device) -> Any:
    if isinstance(lr, dict):
        return {name: _made(rate, device) for name, rate in lr.items()}
    return scalar(lr, widest(device), device)


@attrs.frozen(eq=False, repr=False)
class Compiled(GraphStep):
    """The device step of one program by graphs.

    Attributes:
        parts: the graphs that steps of several micro-batches are made of.
        rates: the last learning rate as a tensor.
    """

    parts: Parts = attrs.field(
        default=attrs.Factory(lambda own: Parts(own.fixed, own.lowering), takes_self=True),
        init=False,
    )
    rates: RateCache = attrs.field(factory=RateCache, init=False)

    @property
    def description(self) -> str:
        """A text that tells its numbers from those of other ways to make the step."""
        return f"compiled({self.lowering.description})"

    def __call__(
        self,
        state: step.DeviceState,
        batches: list[Batch],
        lr: Any,
        ema_due: bool,
        donation: Donation | None = None,
        seed: int | None = None,
    ) -> tuple[step.DeviceState, step.Outputs]:
        """See :class:`functrain.core.step.AnyDeviceStep`."""
        given = {name: state[name] for name in WRITTEN}
        try:
            large, leaves, number, lent = self.held(given, donation)
        except CaptureError as error:
            self.fall_back(error)
            return step.eager(self.fixed)(state, batches, lr, ema_due, donation, seed)
        rest = self.rest(state, lr, ema_due)
        paths = self.fixed.updated
        found = self._graph(number, large, batches, rest)
        if found is None:
            return step.eager(self.fixed)(state, batches, lr, ema_due, donation, seed)
        if isinstance(found, MissingEntriesError):
            whole = {**state, "optimizer": aligned(state["optimizer"], found.optimizer)}
            return self(whole, batches, lr, ema_due, donation, seed)
        if lent is None and paths != self.fixed.updated:  # as its capture has shown
            large = self.copied(given)
            leaves = flatten(large)
        graph, own = found
        leaves += [*own, *flatten(rest)]
        before_write = _nothing if lent is None else lent.take
        draws = seed if graph.draws else None
        device = state["skipped"].device
        with (
            without_autocast(device)
            if draws is None
            else scoped(draws, device, draws=self.fixed.draws)
        ):
            scalars, outputs = graph.run(leaves, before_write, seed)
        outputs["maker"] = self.maker
        return {**large, **scalars}, outputs

    def warm(self, state: step.DeviceState, batches: list[Batch], lr: Any, ema_due: bool) -> None:
        """See :class:`functrain.core.step.Warmable`."""
        large = {name: state[name] for name in WRITTEN}
        try:
            require_dense(large)
        except CaptureError as error:
            self.fall_back(error)
            return
        if not writable(flatten(large)):
            large = self.copied(large)  # as a step would
        found = self._graph(self.number(large), large, batches, self.rest(state, lr, ema_due))
        if isinstance(found, MissingEntriesError):
            whole = {**state, "optimizer": aligned(state["optimizer"], found.optimizer)}
            self.warm(whole, batches, lr, ema_due)

    def rest(self, state: step.DeviceState, lr: Any, ema_due: bool) -> dict[str, Any]:
        """Return the inputs that are new at each step, without the batches.

        Numbers are tensors there, or the graph would have them built in.
        """
        device = state["skipped"].device
        ema = self.fixed.recipe.ema
        always = ema is None or ema.due(1)  # then at every step
        return {
            "lr": self.rates.tensors(lr, device),
            "ema_due": ema_due if always else scalar(ema_due, torch.bool, device),
            "scalars": {"skipped": state["skipped"], "loss_scale": state["loss_scale"]},
        }

    def copied(self, state: step.DeviceState) -> step.DeviceState:
        """Return a state with copies of the tensors that a step updates."""
        own = step.copied_state(state, self.fixed.updated)
        return {**own, "buffers": copy(own["buffers"])}

    def _graph(
        self, number: int, state: step.DeviceState, batches: list[Batch], rest: dict[str, Any]
    ) -> tuple[Graph, list[Tensor]] | MissingEntriesError | None:
        """Return the graph for inputs like these, and the tensors of the batches to give it.

        It is captured if there is none; ``None`` stands for eager.
        """
        device = rest["scalars"]["skipped"].device
        try:
            kind, own = given(batches, device, self.known.places)
        except CaptureError as error:  # which has no key
            self.fall_back(error)
            return None
        key = (number, kind)
        if key not in self.graphs:
            self._warn_of_many()
            inputs = {"batches": with_tensors(batches, iter(own)), **rest}
            self.add(key, lambda: self._captured(number, state, inputs))
        graph: Graph | MissingEntriesError | None = self.graphs[key]
        return (graph, own) if isinstance(graph, Graph) else graph

    def known_graph(
        self, number: int, batches: list[Batch], device: torch.device, places: frozenset[int]
    ) -> tuple[Graph, list[Tensor]] | None:
        """Return the graph for inputs like these and their tensors, if it has been captured.

        ``number`` is that of the form of the state; ``places`` are where the storages of its
        tensors begin.
        """
        try:
            kind, own = given(batches, device, places)
        except CaptureError:
            return None
        graph = self.graphs.get((number, kind))
        return (graph, own) if isinstance(graph, Graph) else None

    def _warn_of_many(self) -> None:
        if len(self.graphs) == _MANY:
            warn(
                f"this program was compiled for {_MANY} forms of batch, and this is one more. "
                "Every shape, number or string in a batch has a graph of its own: pad, drop the "
                "last batch, or leave out of batches the fields that the loss does not use",
                RecompileWarning,
            )

    def _captured(self, number: int, state: step.DeviceState, inputs: dict[str, Any]) -> Graph:
        several = len(inputs["batches"]) > 1
        found = self.parts.assembled(number, state, inputs) if several else None
        graph = found or captured_step(self.fixed, self.lowering, state, inputs)
        if self.fixed.model.attributes.left:  # the forward of a capture has no values to compare
            first, device = inputs["batches"][0], inputs["scalars"]["skipped"].device
            warn_of_memory(self.fixed, state["params"], state["buffers"], first, device)
        return graph


def _nothing() -> None:
    """Take no donation: the step writes to copies."""
