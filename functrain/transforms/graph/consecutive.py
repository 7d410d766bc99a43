"""Consecutive steps of one graph over the same tensors, without a ``TrainState`` in between.

A donated step writes over the state it is given, so the next step has the very same tensors. Their
form and their holders are found once here, where ``train_step`` looks for them at each step.
"""

from __future__ import annotations

from typing import Any

import attrs
from torch import Tensor

from functrain.core import learning_rate, nonfinite
from functrain.core.batch import Batch
from functrain.core.batch_splitting import split_step
from functrain.core.loss import Metrics, reported
from functrain.core.program import Program
from functrain.core.rng import Rng, scoped, without_autocast
from functrain.core.state import Counters, Donation, TrainState, fields_of, made_by
from functrain.core.step import DeviceState, Outputs
from functrain.transforms.graph.device_step import Compiled
from functrain.transforms.graph.inputs import flatten


@attrs.define(eq=False)
class Consecutive:
    """A state between the steps of a compiled program, as the leaves of its graphs.

    Attributes:
        tensors: ``params, buffers, optimizer, ema``, which nothing else holds.
        leaves: the same, flat; graphs write to them.
        places: where their memory begins.
        scalars: ``skipped`` and ``loss_scale``, which graphs return.
        is_writing: whether a graph has begun to write and has not returned.
    """

    program: Program
    compiled: Compiled
    tensors: DeviceState
    leaves: list[Tensor]
    form: int
    places: frozenset[int]
    scalars: dict[str, Any]
    scheduler: dict[str, Any]
    rng: Rng
    counters: Counters
    is_writing: bool = False

    @classmethod
    def of(cls, program: Program, state: TrainState) -> Consecutive | None:
        """Return the state that a step has just returned, if the next may write over it.

        The donated program's last step made the state, which is not to be used any more.
        """
        compiled = program.device_step
        if not isinstance(compiled, Compiled) or not Donation(state).lends_to(compiled.maker):
            return None
        if program.recipe.detect_anomaly:  # a step may have to be repeated from its state
            return None
        fields = fields_of(state)
        tensors = {name: fields[name] for name in ("params", "buffers", "optimizer", "ema")}
        leaves, known = flatten(tensors), compiled.known
        if not known.holds(leaves, fields["params"]):
            return None
        scalars = {"skipped": state.counters.skipped, "loss_scale": state.loss_scale}
        return cls(
            program,
            compiled,
            tensors,
            leaves,
            known.form,
            known.places,
            scalars,
            state.scheduler,
            state.rng,
            state.counters,
        )

    @property
    def state(self) -> TrainState:
        """The state; a consumed one where a graph failed while it wrote."""
        state = TrainState(
            **self.tensors,
            scheduler=self.scheduler,
            loss_scale=self.scalars["loss_scale"],
            rng=self.rng,
            counters=self.counters,
        )
        if self.is_writing:
            Donation(state).take()
        return made_by(self.compiled.maker, self.program.fixed.model, state)

    def step(self, batch: Batch) -> Metrics | None:
        """Make one step, as ``train_step`` does; ``None`` where there is no graph for it yet."""
        program, number = self.program, self.counters.step
        given = split_step(batch, program.recipe.accumulate)
        device, places = self.scalars["skipped"].device, self.places
        found = self.compiled.known_graph(self.form, given.parts, device, places)
        if found is None or not given.samples:
            return None
        graph, own = found
        lr = program.rate(self.scheduler, number)
        rest = self.compiled.rest(self.scalars, lr, program.is_ema_due(number))
        leaves = [*self.leaves, *own, *flatten(rest)]
        seed = self.rng.stream("step", number) if graph.draws else None
        draws = program.fixed.draws
        try:
            with without_autocast(device) if seed is None else scoped(seed, device, draws=draws):
                scalars, outputs = graph.run(leaves, self._begin_to_write, seed)
        except Exception as error:
            from functrain.diagnosis.step_errors import explain_step

            explain_step(error, program, self.state, number, given.parts)
            raise
        self.is_writing = False
        self._require_finite(outputs, given.parts, number)
        nonfinite.refuse_stuck(number, outputs, scalars["loss_scale"])
        self.scalars = scalars
        self.scheduler = learning_rate.advance(program.schedules, self.scheduler, outputs["loss"])
        self.counters = self.counters.after(given, scalars["skipped"])
        return reported(outputs, lr)

    def _require_finite(self, outputs: Outputs, batches: list[Batch], number: int) -> None:
        program, old = self.program, self.scalars
        if program.recipe.nonfinite != "raise":
            return
        if not nonfinite.is_recoverable(outputs, old["loss_scale"]):
            stream = self.rng.stream("step", number)
            grads, _ = program.repeated({**self.tensors, **old}, batches, stream)
            from functrain.diagnosis.nonfinite_steps import raise_for

            raise_for(number, outputs, grads)

    def _begin_to_write(self) -> None:
        self.is_writing = True
