"""A population: a program whose state has an axis of members.

Read :meth:`Population.train_step` first. It is that of ``core/program.py`` with a learning rate, a
schedule and a random stream for each member.
"""

from __future__ import annotations

import contextlib
from typing import Any

import attrs

from functrain import tree
from functrain.core.batch import Batch
from functrain.core.first_step import refuse_compile
from functrain.core.loss import LossOutput, Metrics, reported, unmeasured
from functrain.core.schedule import Mode
from functrain.core.state import Donation, TrainState, made_by, with_fields, without_samples
from functrain.core.step import DeviceState, Outputs, device_state
from functrain.errors import ConfigurationError, NonFiniteError, UnsupportedError
from functrain.populations import anomalies, rates, states
from functrain.populations.batches import Batches, parts
from functrain.populations.decisions import MemberDecisions
from functrain.populations.draws import streams_of
from functrain.populations.evaluation import evaluated, in_chunks, metrics_of, one_by_one, slices
from functrain.populations.graph import CompiledMembers
from functrain.populations.in_fit import Members
from functrain.populations.member_states import MemberStates
from functrain.populations.members import rows
from functrain.populations.step import EagerMembers, Inputs, Seen
from functrain.populations.stopping import Parts, train_rest
from functrain.transforms.graph.lowering import Lowering


@attrs.frozen(eq=False, repr=False)
class Population(MemberStates):
    """Members of one program that one step trains; made by :func:`functrain.population`.

    It is a program: ``init``, ``train_step`` and ``eval_step`` take and return states of all
    members, whose tensors have an axis of members in front. Metrics have the shape ``[members]``.

    Attributes:
        programs: that of each member, with its hyperparameters at the start.
        values: these hyperparameters by path. A state holds its own, which ``replaced`` changes.
        seeds: of each member.
        batches: ``"shared"`` or ``"own"``.
        chunk_size: how many members are computed at once; ``None`` for all.
        device_step: that of all members; see ``populations/step.py``.
    """

    batches: Batches = attrs.field(kw_only=True)
    chunk_size: int | None = attrs.field(kw_only=True, default=None)
    parts: Parts = attrs.field(factory=Parts, init=False)
    seen_in_evaluation: Seen = attrs.field(factory=Seen, init=False)

    def __attrs_post_init__(self) -> None:
        made: Any = self.device_step
        if not isinstance(made, EagerMembers | CompiledMembers):
            raise ConfigurationError(
                f"{type(made).__name__.lower()} takes one program, got a population: "
                "apply it to that of a member, pop.programs[i]"
            )

    def __repr__(self) -> str:
        varied = ", ".join(self.values) or "seeds"
        return f"Population({len(self)} members with their own {varied})\n{super().__repr__()}"

    @property
    def in_fit(self) -> Members:
        """The answers of the members to a run."""
        return Members(self)

    @property
    def decisions(self) -> type[MemberDecisions]:
        """The decisions of a run about members."""
        return MemberDecisions

    @property
    def not_schedules(self) -> tuple[str, ...]:
        """The keys of ``state.scheduler`` that belong to no schedule."""
        return (states.MEMBERS,)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Make one update of every member, as a pure function.

        A member whose loss or gradients are not finite keeps its weights, and its
        ``state.counters.skipped`` is counted up, unless ``nonfinite="ignore"``. It changes nothing
        of the others.

        Args:
            state: of all members; not changed (a donated population consumes it).
            batch: what the loss takes, for all members; with ``batches="own"`` its tensors have the
                axis of members in front.

        Returns:
            (next state, metrics); each metric has the shape ``[members]``.

        Raises:
            ConfigurationError: the state is of another population.
            NonFiniteError: no member can make the update, and ``nonfinite="raise"``.
            UnsupportedError: an operation of the model or the loss cannot be mapped over members.
        """
        refuse_compile()
        self.require(state, batch)
        given = parts(batch, self.recipe.accumulate, len(self), self.batches)
        if not given.samples:
            return without_samples(state, given), unmeasured(len(self))
        if states.stops(state):
            return train_rest(self, state, batch)
        programs, tensors = self._hyperparameters(state)
        host_lr = rates.stacked(rates.of_members(programs, state, self.zero_rate))
        donation = Donation(state) if self.donates else None
        lent = None if self.recipe.detect_anomaly else donation
        scheduler, rng, counters = state.scheduler, state.rng, state.counters
        after, outputs = self._of_all(state, given.parts, host_lr, tensors, lent)
        if self.recipe.nonfinite == "raise" and not bool(outputs["finite"].any()):
            if donation is not None:
                donation.give_back()
            place = None
            if self.recipe.detect_anomaly:
                place = anomalies.located(programs, self.batches, state, batch, [0])[0]
            raise NonFiniteError(counters.step, outputs["loss"].tolist(), [], len(self), place)
        if self.recipe.detect_anomaly:
            anomalies.warn_of(outputs, programs, self.batches, state, batch)
        counters = counters.after(given, after.pop("skipped"))
        scheduler = rates.advanced(programs, scheduler, outputs["loss"])
        updated = TrainState(**after, scheduler=scheduler, rng=rng, counters=counters)
        if donation is not None:
            donation.take()
        members: Any = self.device_step
        if "in_place" in outputs:
            made_by(members.maker, members, updated)
        return updated, reported(outputs, host_lr)

    def _of_all(
        self,
        state: TrainState,
        batches: list[Batch],
        host_lr: Any,
        hyperparameters: dict[str, Any],
        donation: Donation | None,
    ) -> tuple[DeviceState, Outputs]:
        """Make the device part of a step, of some members at a time."""
        number, seeds = state.counters.step, states.seeds_of(state)
        own_batches = self.batches == "own"
        lr = tree.map(lambda rate: rate.to(state.device), host_lr)
        ema_due = self.is_ema_due(number)
        step: Any = self.device_step

        def of_some(own: DeviceState, some: slice) -> tuple[DeviceState, Outputs]:
            given = rows(batches, some) if own_batches else batches
            inputs = Inputs(given, rows(lr, some), rows(hyperparameters, some))
            seed, streams = streams_of(seeds[some], ("step", number), len(batches))
            found: tuple[DeviceState, Outputs] = step(own, inputs, ema_due, donation, seed, streams)
            return found

        return in_chunks(of_some, device_state(state), self.chunks)

    def warm(self, state: TrainState, batch: Batch) -> None:
        """Compile the step, by one whose result is dropped; see :meth:`Program.warm`."""
        device_step: Any = self.device_step
        if isinstance(device_step, CompiledMembers):
            with contextlib.suppress(NonFiniteError):  # values do not matter
                attrs.evolve(self, donates=False, zero_rate="ignore").train_step(state, batch)

    def eval_step(self, state: TrainState, batch: Batch, weights: str = "params") -> Metrics:
        """Return loss and metrics of a batch for every member; see :meth:`Program.eval_step`.

        Returns:
            Each metric has the shape ``[members]``.
        """
        return metrics_of(self.loss_output(state, batch, weights), len(self), state.device)

    def loss_output(self, state: TrainState, batch: Batch, weights: str = "params") -> LossOutput:
        """Return the result of ``eval_step``, every tensor in it with the axis of members."""
        self.require(state, batch)
        programs, tensors = self._hyperparameters(state)
        try:
            return evaluated(self, state, batch, weights, tensors)
        except UnsupportedError as error:
            if not isinstance(error.__cause__, RuntimeError):  # the operation can be mapped
                raise
        return one_by_one(self, programs, state, batch, weights)

    def observe(self, state: TrainState, metric: Any, mode: Mode | None = None) -> TrainState:
        """Report a metric of an evaluation of each member to its schedule.

        Args:
            state: of all members; not changed.
            metric: a number of each member, as ``eval_step`` returns them; ``None`` where it was
                not measured.
            mode: see :meth:`Program.observe`.

        Raises:
            ConfigurationError: there is not one number for each member.
        """
        self.require(state)
        programs, _ = self._hyperparameters(state)
        running = states.running(state)
        scheduler = rates.observed(programs, state.scheduler, running, metric, mode)
        return with_fields(state, scheduler=scheduler)

    def by_graphs(self, lowering: Lowering, fallback: bool) -> Population:
        """Return the population with a compiled device part; ``functrain.compiled`` calls it."""
        device_step: Any = self.device_step
        if not isinstance(device_step, EagerMembers):
            raise ConfigurationError("compiled takes an eager population, got a compiled one")
        made: Any = CompiledMembers(self.fixed, lowering, fallback, self.batches == "own")
        return attrs.evolve(self, device_step=made)

    @property
    def chunks(self) -> list[slice]:
        """The members that are computed at once."""
        return slices(len(self), self.chunk_size)
