"""The device part of a step of all members as one compiled graph."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import attrs
from torch import Tensor

from functrain.core import step
from functrain.core.state import Donation
from functrain.populations.draws import Draw, Streams
from functrain.populations.graph_draws import GraphDraws, Root, drawn
from functrain.populations.step import EagerMembers, Inputs, take_steps
from functrain.transforms.graph.capture import Captured, capture
from functrain.transforms.graph.functions import write_over
from functrain.transforms.graph.graph_step import Graph, GraphStep, RunsEagerlyError
from functrain.transforms.graph.inputs import flatten, form, on_device
from functrain.tree.nodes import copy

_WRITTEN = ("params", "buffers", "optimizer", "ema")  # a graph writes to these


class MembersGraph(NamedTuple):
    """A compiled step of all members.

    Attributes:
        call: the graph; it writes to the state.
        draws: random numbers that are inputs.
    """

    call: Graph
    draws: list[tuple[Draw, Root | None]]


@attrs.frozen(eq=False, repr=False)
class CompiledMembers(GraphStep):
    """The device step of a population by graphs.

    Attributes:
        maker: stands for this step in the states that it makes.
    """

    own_batches: bool
    maker: object = attrs.field(factory=object, init=False)

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
        is_own = donation is not None and donation.lends_to(self.maker)
        large = {name: state[name] for name in _WRITTEN}
        large = large if is_own else copy(large)
        batches = on_device(inputs.batches, state["skipped"].device)
        scalars = {name: state[name] for name in ("skipped", "loss_scale")}
        given = {"state": large, "scalars": scalars, **inputs._replace(batches=batches)._asdict()}
        key = (form([large, batches])[0], ema_due, streams.members)
        capture = functools.partial(self._captured, given, ema_due, seed, streams)
        try:
            graph = self.graph(key, capture)
        except RunsEagerlyError:
            eager = EagerMembers(self.fixed, self.own_batches)
            return eager(state, inputs, ema_due, donation, seed, streams)
        noise = drawn(graph.draws, streams)
        if donation is not None and is_own:
            donation.take()
        found = graph.call(flatten({**given, "noise": noise}))
        return {**large, **found["scalars"]}, {**found["outputs"], "in_place": True}

    def _captured(
        self, given: dict[str, Any], ema_due: bool, seed: int, streams: Streams
    ) -> MembersGraph:
        def captured(noise: list[Tensor] | None) -> tuple[Captured, GraphDraws]:
            mode = GraphDraws(streams, noise)

            def function(given: dict[str, Any]) -> dict[str, Any]:
                old, scalars, noise = (given.pop(name) for name in ("state", "scalars", "noise"))
                mode.use(noise)
                with mode:
                    new, outputs = take_steps(
                        self.fixed,
                        self.own_batches,
                        {**old, **scalars},
                        Inputs(**given),
                        ema_due,
                        seed,
                    )
                write_over(old, new)
                # A metric may be a part of the state, which the next step writes over.
                outputs["metrics"] = copy(outputs["metrics"])
                return {"scalars": {name: new[name] for name in scalars}, "outputs": outputs}

            found = capture(function, {**given, "noise": noise}, self.fixed.model.module)
            return found, mode

        # First to see which random numbers are drawn.
        found, mode = captured(None)
        noise = drawn(mode.found, streams)
        if noise:
            found, mode = captured(noise)
        call = Graph(found, {**given, "noise": noise}, self.lowering)
        return MembersGraph(call, mode.found)
