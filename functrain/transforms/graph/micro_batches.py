"""A step of several micro-batches: a graph that each of them goes through, and one that updates.

In one graph they would be written out one after another: compiling would take as many times as
long, and another number of them would be another graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import torch
from torch import Tensor

from functrain.core import step
from functrain.core.accumulation import require_gradients
from functrain.core.loss import Outcome
from functrain.core.metrics import computed
from functrain.core.part_sums import mean_outcome, part_stream
from functrain.core.recipe import Fixed
from functrain.core.rng import scoped
from functrain.transforms.graph.inputs import Form, builder, form
from functrain.transforms.graph.lowering import Lowering
from functrain.transforms.graph.missing_entries import MissingEntries

if TYPE_CHECKING:  # these modules take a while to import
    from functrain.transforms.graph.parts import Gradients, Update
    from functrain.transforms.graph.train_step import BeforeWrite, Graph, Run


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

    fixed: Fixed
    lowering: Lowering
    gradients: dict[tuple[Form, Form], Gradients | None] = attrs.field(factory=dict, init=False)
    updates: dict[Kind, Update | MissingEntries] = attrs.field(factory=dict, init=False)

    def assembled(
        self, number: int, state: step.DeviceState, inputs: dict[str, Any]
    ) -> Graph | MissingEntries | None:
        """Return a step for such inputs, or the missing entries; ``None`` if it must be one graph.

        ``number`` is that of the form of the state, which has ``params, buffers, optimizer, ema``
        and is not changed here; the inputs are ``batches, lr, ema_due`` and ``scalars``.
        """
        from functrain.transforms.graph.train_step import Graph

        found = [self._gradients(state, inputs, batch) for batch in inputs["batches"]]
        each = [part for part in found if part is not None]
        if len(each) < len(found):
            return None
        used = frozenset[str]().union(*(part.paths for part in each))
        paths = tuple(path for path in self.fixed.trainable if path in used)
        require_gradients(self.fixed, paths)
        dtype = functools.reduce(torch.promote_types, (part.dtype for part in each))
        kind = Kind(number, paths, tuple(sorted(self.fixed.model.writes.paths)), dtype)
        update = self._update(kind, state, inputs)
        if isinstance(update, MissingEntries):
            return update
        draws = update.draws or any(part.draws for part in each)
        return Graph(self._in_turn(each, update, kind, builder([state, inputs])), draws)

    def _gradients(
        self, state: step.DeviceState, inputs: dict[str, Any], batch: Any
    ) -> Gradients | None:
        from functrain.transforms.graph.parts import captured_gradients

        key = (form([state["params"], state["buffers"], _scale(inputs)]), form(batch))
        if key not in self.gradients:
            given = {**self._sums(state), "scale": _scale(inputs), "batch": batch}
            self.gradients[key] = captured_gradients(self.fixed, self.lowering, given)
        return self.gradients[key]

    def _update(
        self, kind: Kind, state: step.DeviceState, inputs: dict[str, Any]
    ) -> Update | MissingEntries:
        from functrain.transforms.graph.parts import captured_update

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
            "total": {path: torch.zeros_like(param) for path, param in trainable.items()},
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
                with _stream(part, seed, number, inputs):
                    found.append(part.call({**sums, "scale": scale, "batch": batch}))
            outcomes = [Outcome(one["loss"], None, one["metrics"]) for one in found]
            mean, divisor = mean_outcome(outcomes, [one["weight"] for one in found], scale)
            metrics = computed(mean.metrics, mean.value.device)
            loss, divisor = mean.value.to(kind.dtype), divisor.to(kind.dtype)
            before_write()
            done = update.call(_given(kind, state, sums, loss, divisor, inputs))
            return done["scalars"], {**done["outputs"], "loss": mean.value, "metrics": metrics}

        return run


def _stream(
    part: Gradients, seed: int | None, number: int, inputs: dict[str, Any]
) -> AbstractContextManager[object]:
    """Return the scope in which a micro-batch draws its random numbers."""
    if seed is None or not part.draws:
        return nullcontext()
    return scoped(part_stream(seed, number), inputs["scalars"]["skipped"].device)


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
