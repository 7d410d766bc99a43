"""The device part of a step, as one graph for each form of state and batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core import step
from functrain.core.batch import Batch
from functrain.core.recipe import Fixed
from functrain.core.rng import scoped, without_autocast
from functrain.core.state import Donation
from functrain.errors import (
    CaptureError,
    CompilationError,
    FallbackWarning,
    RecompileWarning,
)
from functrain.errors.base import warn
from functrain.optim.update_counts import aligned
from functrain.transforms.graph.garbage import fewer_collections
from functrain.transforms.graph.inputs import (
    Form,
    flatten,
    form,
    given,
    scalar,
    unlike_dense,
    with_tensors,
    writable,
)
from functrain.transforms.graph.lowering import Lowering
from functrain.transforms.graph.micro_batches import Parts
from functrain.transforms.graph.missing_entries import MissingEntries
from functrain.transforms.graph.state_cache import RateCache, StateCache
from functrain.tree.nodes import copy

if TYPE_CHECKING:
    from functrain.transforms.graph.train_step import Graph

_WRITTEN = ("params", "buffers", "optimizer", "ema")  # a graph writes to these
_MANY = 8  # graphs of one program, after which it warns


@attrs.frozen(eq=False, repr=False)
class Compiled:
    """A device step that keeps a graph for each form of state and batch it was given.

    Its memory changes nothing except the time a step takes.

    Attributes:
        fallback: whether a step that is no graph runs eagerly.
        graphs: by the form of the state and of the other inputs; ``None`` stands for eager, and
            ``MissingEntries`` for a state without counts of the parameters that the step skips.
        parts: the graphs that steps of several micro-batches are made of.
        forms: numbers of the forms of states.
        known: the leaves of the last state returned, with its form.
        rates: the last learning rate as a tensor.
    """

    fixed: Fixed
    lowering: Lowering
    fallback: bool
    graphs: dict[tuple[int, Form], Graph | MissingEntries | None] = attrs.field(
        factory=dict, init=False
    )
    parts: Parts = attrs.field(
        default=attrs.Factory(lambda own: Parts(own.fixed, own.lowering), takes_self=True),
        init=False,
    )
    forms: dict[Form, int] = attrs.field(factory=dict, init=False)
    known: StateCache = attrs.field(factory=StateCache, init=False)
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
        """See :class:`functrain.core.step.DeviceStep`."""
        given = large = {name: state[name] for name in _WRITTEN}
        leaves, mine = flatten(large), donation is not None
        seen = self.known.holds(leaves, large["params"])
        if not seen and (reason := _not_dense(large)) is not None:
            self._fall_back(CaptureError(reason, None))
            return step.eager(self.fixed)(state, batches, lr, ema_due, donation, seed)
        if not (mine and (seen or writable(leaves))):
            large, mine = self._copied(large), False
            leaves = flatten(large)
        number = self.known.form if seen else self._number(large)
        if not (mine and seen):
            self.known.see(leaves, large["params"], number)
        rest = self.rest(state, lr, ema_due)
        paths = self.fixed.updated
        found = self._graph(number, large, batches, rest)
        if found is None:
            return step.eager(self.fixed)(state, batches, lr, ema_due, donation, seed)
        if isinstance(found, MissingEntries):
            whole = {**state, "optimizer": aligned(state["optimizer"], found.optimizer)}
            return self(whole, batches, lr, ema_due, donation, seed)
        if not mine and paths != self.fixed.updated:  # as its capture has shown
            large = self._copied(given)
            leaves = flatten(large)
        graph, own = found
        leaves += [*own, *flatten(rest)]
        before_write = donation.take if mine and donation is not None else _nothing
        draws = seed if graph.draws else None
        device = state["skipped"].device
        with without_autocast() if draws is None else scoped(draws, device):
            scalars, outputs = graph.run(leaves, before_write, seed)
        return {**large, **scalars}, outputs

    def warm(self, state: step.DeviceState, batches: list[Batch], lr: Any, ema_due: bool) -> None:
        """See :class:`functrain.core.step.Warmable`."""
        large = {name: state[name] for name in _WRITTEN}
        if (reason := _not_dense(large)) is not None:
            self._fall_back(CaptureError(reason, None))
            return
        if not writable(flatten(large)):
            large = self._copied(large)  # as a step would
        found = self._graph(self._number(large), large, batches, self.rest(state, lr, ema_due))
        if isinstance(found, MissingEntries):
            whole = {**state, "optimizer": aligned(state["optimizer"], found.optimizer)}
            self.warm(whole, batches, lr, ema_due)

    def rest(self, state: step.DeviceState, lr: Any, ema_due: bool) -> dict[str, Any]:
        """Return the inputs that are new at each step, without the batches.

        Numbers are tensors there, or the graph would have them built in.
        """
        device = state["skipped"].device
        ema = self.fixed.recipe.ema
        always = ema is None or ema.always_due
        return {
            "lr": self.rates.tensors(lr, device),
            "ema_due": ema_due if always else scalar(ema_due, torch.bool, device),
            "scalars": {"skipped": state["skipped"], "loss_scale": state["loss_scale"]},
        }

    def _copied(self, state: step.DeviceState) -> step.DeviceState:
        own = step.copied_state(state, self.fixed.updated)
        return {**own, "buffers": copy(own["buffers"])}

    def _number(self, state: step.DeviceState) -> int:
        return self.forms.setdefault(form(state), len(self.forms))

    def _graph(
        self, number: int, state: step.DeviceState, batches: list[Batch], rest: dict[str, Any]
    ) -> tuple[Graph, list[Tensor]] | MissingEntries | None:
        """Return the graph for inputs like these, and the tensors of the batches to give it.

        It is captured if there is none; ``None`` stands for eager.
        """
        device = rest["scalars"]["skipped"].device
        try:
            kind, own = given(batches, device, self.known.places)
        except CaptureError as error:  # which has no key
            self._fall_back(error)
            return None
        key = (number, kind)
        if key not in self.graphs:
            batches = with_tensors(batches, iter(own))
            self._add(key, state, {"batches": batches, **rest})
        graph = self.graphs[key]
        return (
            (graph, own) if graph is not None and not isinstance(graph, MissingEntries) else graph
        )

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
        return None if graph is None or isinstance(graph, MissingEntries) else (graph, own)

    def _add(self, key: Any, state: step.DeviceState, inputs: dict[str, Any]) -> None:
        if len(self.graphs) == _MANY:
            warn(
                f"this program was compiled for {_MANY} forms of batch, and this is one more. "
                "Every shape, number or string in a batch has a graph of its own: pad, drop the "
                "last batch, or leave out of batches the fields that the loss does not use",
                RecompileWarning,
            )
        try:
            with fewer_collections():
                self.graphs[key] = self._made(key[0], state, inputs)
        except (CaptureError, CompilationError) as error:
            self._fall_back(error)
            self.graphs[key] = None

    def _made(
        self, number: int, state: step.DeviceState, inputs: dict[str, Any]
    ) -> Graph | MissingEntries:
        # The modules that compiling needs take a while to import.
        from functrain.transforms.graph.train_step import captured_step

        several = len(inputs["batches"]) > 1
        found = self.parts.assembled(number, state, inputs) if several else None
        return found or captured_step(self.fixed, self.lowering, state, inputs)

    def _fall_back(self, error: Exception) -> None:
        if not self.fallback:
            raise error
        warn(f"this step runs eagerly: {error}", FallbackWarning)


def _not_dense(state: step.DeviceState) -> str | None:
    """Return a sentence if a graph cannot take one of the tensors of a state."""
    for path, leaf in tree.items(state):
        if isinstance(leaf, Tensor) and (kind := unlike_dense(leaf)) is not None:
            return f"state.{tree.path_string(path)} is a {kind} tensor; a graph takes dense ones"
    return None


def _nothing() -> None:
    """Take no donation: the step writes to copies."""
