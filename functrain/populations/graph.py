"""The device part of a step of all members as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
from torch import Tensor

from functrain.core import step
from functrain.core.recipe import Fixed
from functrain.core.state import Donation
from functrain.errors import CaptureError, CompilationError, FallbackWarning
from functrain.errors.base import warn
from functrain.optim.update_counts import aligned
from functrain.populations.draws import Draw, Streams
from functrain.populations.graph_draws import GraphDraws, Root, drawn
from functrain.populations.step import EagerMembers, Inputs, take_steps
from functrain.transforms.graph.inputs import (
    Form,
    alike,
    builder,
    flatten,
    form,
    given,
    with_tensors,
    writable,
)
from functrain.transforms.graph.lowering import Lowering
from functrain.transforms.graph.missing_entries import MissingEntries, missing_entries
from functrain.transforms.graph.state_cache import StateCache
from functrain.tree.nodes import copy

if TYPE_CHECKING:  # which takes a while to import
    from functrain.transforms.graph.capture import Captured

_WRITTEN = ("params", "buffers", "optimizer", "ema")


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


@attrs.frozen(eq=False)
class CompiledMembers:
    """A device step of a population that keeps a graph for each form of state and inputs.

    Attributes:
        fallback: whether a step that is no graph runs eagerly.
        graphs: by form; ``None`` stands for eager.
        known: the state returned last, with its form.
        forms: numbers of the forms of states.
    """

    fixed: Fixed
    own_batches: bool
    lowering: Lowering
    fallback: bool
    graphs: dict[Any, Graph | MissingEntries | None] = attrs.field(factory=dict, init=False)
    known: StateCache = attrs.field(factory=StateCache, init=False)
    forms: dict[Form, int] = attrs.field(factory=dict, init=False)

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
        large = {name: state[name] for name in _WRITTEN}
        leaves, mine = flatten(large), donation is not None
        seen = self.known.holds(leaves, large["params"])
        if not (mine and (seen or writable(leaves))):
            large, mine = copy(large), False
            leaves = flatten(large)
        number = self.known.form if seen else self.forms.setdefault(form(large), len(self.forms))
        if not (mine and seen):
            self.known.see(leaves, large["params"], number)
        scalars = {"skipped": state["skipped"], "loss_scale": state["loss_scale"]}
        kind, own = given(inputs.batches, state["skipped"].device, self.known.places)
        rest = {"lr": inputs.lr, "hyperparameters": inputs.hyperparameters, "scalars": scalars}
        key = (number, kind, ema_due, streams.members)
        if key not in self.graphs:
            batches = with_tensors(inputs.batches, iter(own))
            self._add(key, large, {"batches": batches, **rest}, ema_due, seed, streams)
        graph = self.graphs[key]
        if graph is None:
            eager = EagerMembers(self.fixed, self.own_batches)
            return eager(state, inputs, ema_due, donation, seed, streams)
        if isinstance(graph, MissingEntries):
            whole = {**state, "optimizer": aligned(state["optimizer"], graph.optimizer)}
            return self(whole, inputs, ema_due, donation, seed, streams)
        noise = drawn(graph.draws, streams)
        if mine and donation is not None:
            donation.take()
        found = graph.build(iter(graph.call(*leaves, *own, *flatten(rest), *noise)))
        return {**large, **found["scalars"]}, found["outputs"]

    def _add(
        self,
        key: Any,
        large: dict[str, Any],
        rest: dict[str, Any],
        ema_due: bool,
        seed: int,
        streams: Streams,
    ) -> None:
        try:
            self.graphs[key] = self._captured(large, rest, ema_due, seed, streams)
        except (CaptureError, CompilationError) as error:
            if not self.fallback:
                raise
            warn(f"this step runs eagerly: {error}", FallbackWarning)
            self.graphs[key] = None

    def _captured(
        self,
        large: dict[str, Any],
        rest: dict[str, Any],
        ema_due: bool,
        seed: int,
        streams: Streams,
    ) -> Graph | MissingEntries:
        from functrain.transforms.graph.capture import capture
        from functrain.transforms.graph.train_step import write

        examples = [*flatten(large), *flatten(rest)]
        missing: list[MissingEntries] = []

        def captured(noise: list[Tensor] | None) -> tuple[Captured, GraphDraws]:
            mode = GraphDraws(streams, noise)

            def function(leaves: list[Tensor]) -> dict[str, Any]:
                tensors = iter(leaves)
                own, more = with_tensors(large, tensors), with_tensors(rest, tensors)
                mode.use(None if noise is None else list(tensors))
                whole = {**own, **more.pop("scalars")}
                with mode:
                    new, outputs = take_steps(
                        self.fixed, self.own_batches, whole, Inputs(**more), ema_due, seed
                    )
                if entries := missing_entries(own["optimizer"], new["optimizer"]):
                    missing.append(entries)
                    return {}
                write(own, {name: new[name] for name in own})
                outputs["metrics"] = {name: m.clone() for name, m in outputs["metrics"].items()}
                return {"scalars": {n: new[n] for n in rest["scalars"]}, "outputs": outputs}

            found = capture(function, [*examples, *(noise or [])], self.fixed.model.module)
            return found, mode

        # First to see which random numbers are drawn.
        found, mode = captured(None)
        if missing:
            return missing[0]
        noise = drawn(mode.found, streams)
        if noise:
            found, mode = captured(noise)
        call = self.lowering.compile(found.graph, list(map(alike, [*examples, *noise])))
        return Graph(call, builder(found.returned), mode.found)
