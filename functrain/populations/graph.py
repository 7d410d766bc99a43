"""The device part of a step of all members as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
from torch import Tensor

from functrain.core import step
from functrain.core.state import Donation
from functrain.optim.update_counts import aligned
from functrain.populations.draws import Draw, Streams
from functrain.populations.graph_draws import GraphDraws, Root, drawn
from functrain.populations.step import EagerMembers, Inputs, take_steps
from functrain.transforms.graph.capture import Captured, capture
from functrain.transforms.graph.graph_step import WRITTEN, GraphStep
from functrain.transforms.graph.inputs import alike, builder, flatten, given, with_tensors
from functrain.transforms.graph.missing_entries import MissingEntriesError
from functrain.transforms.graph.train_step import written_over
from functrain.tree.nodes import copy


class Graph(NamedTuple):
    """A compiled step of all members.

    Attributes:
        call: the graph; it writes to the state.
        build: from the tensors it returns to ``scalars`` and ``outputs``.
        draws: random numbers that are inputs, the last ones.
    """

    call: Callable[..., Any]
    build: Callable[[Any], Any]
    draws: list[tuple[Draw, Root | None]]


@attrs.frozen(eq=False, repr=False)
class CompiledMembers(GraphStep):
    """The device step of a population by graphs."""

    own_batches: bool

    @property
    def description(self) -> str:
        """A text that tells its numbers from those of other ways to make the step."""
        return f"population, compiled({self.lowering.description})"

    def __call__(
        self,
        state: step.DeviceState,
        inputs: Inputs,
        ema_due: bool,
        donation: Donation | None,
        seed: int,
        streams: Streams,
    ) -> tuple[step.DeviceState, step.Outputs]:
        """Make one update; with a donation, in the memory of the state."""
        large = {name: state[name] for name in WRITTEN}
        large, leaves, number, lent = self.held(large, donation)
        scalars = {"skipped": state["skipped"], "loss_scale": state["loss_scale"]}
        kind, own = given(inputs.batches, state["skipped"].device, self.known.places)
        rest = {"lr": inputs.lr, "hyperparameters": inputs.hyperparameters, "scalars": scalars}
        key = (number, kind, ema_due, streams.members)
        if key not in self.graphs:
            given_too = {"batches": with_tensors(inputs.batches, iter(own)), **rest}
            self.add(key, lambda: self._captured(large, given_too, ema_due, seed, streams))
        graph: Graph | MissingEntriesError | None = self.graphs[key]
        if graph is None:
            eager = EagerMembers(self.fixed, self.own_batches)
            return eager(state, inputs, ema_due, donation, seed, streams)
        if isinstance(graph, MissingEntriesError):
            whole = {**state, "optimizer": aligned(state["optimizer"], graph.optimizer)}
            return self(whole, inputs, ema_due, donation, seed, streams)
        noise = drawn(graph.draws, streams)
        if lent is not None:
            lent.take()
        found = graph.build(iter(graph.call(*leaves, *own, *flatten(rest), *noise)))
        return {**large, **found["scalars"]}, found["outputs"]

    def copied(self, state: step.DeviceState) -> step.DeviceState:
        """Return a copy of a state; vmap returns new tensors for all of it."""
        found: step.DeviceState = copy(state)
        return found

    def _captured(
        self,
        large: dict[str, Any],
        rest: dict[str, Any],
        ema_due: bool,
        seed: int,
        streams: Streams,
    ) -> Graph:
        examples = [*flatten(large), *flatten(rest)]

        def captured(noise: list[Tensor] | None) -> tuple[Captured, GraphDraws]:
            mode = GraphDraws(streams, noise)

            def function(leaves: list[Tensor]) -> dict[str, Any]:
                tensors = iter(leaves)
                own, more = with_tensors(large, tensors), with_tensors(rest, tensors)
                mode.use(None if noise is None else list(tensors))
                scalars = more.pop("scalars")
                whole, some = {**own, **scalars}, Inputs(**more)
                with mode:
                    new, outputs = take_steps(
                        self.fixed, self.own_batches, whole, some, ema_due, seed
                    )
                return written_over(own, new, scalars, outputs)

            found = capture(function, [*examples, *(noise or [])], self.fixed.model.module)
            return found, mode

        # First to see which random numbers are drawn.
        found, mode = captured(None)
        noise = drawn(mode.found, streams)
        if noise:
            found, mode = captured(noise)
        call = self.lowering.compile(found.graph, list(map(alike, [*examples, *noise])))
        return Graph(call, builder(found.returned), mode.found)
