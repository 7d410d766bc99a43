"""The members of a population and their states: taken out, stacked, chosen, stopped, replaced."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Self

import attrs
import torch

from functrain.core.batch import Batch
from functrain.core.first_step import require_state
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError
from functrain.populations import hyperparameters as named
from functrain.populations import states


@attrs.frozen(eq=False, repr=False)
class MemberStates(Program):
    """Members of one program, and what can be done with a state of all of them.

    Attributes:
        programs: that of each member, with its hyperparameters at the start.
        values: these hyperparameters by path. A state holds its own, which ``replaced`` changes.
        seeds: of each member.
    """

    programs: list[Program] = attrs.field(kw_only=True)
    values: named.Values = attrs.field(kw_only=True)
    seeds: tuple[int, ...] = attrs.field(kw_only=True)
    memory: named.Memory = attrs.field(factory=named.Memory, init=False)

    def __len__(self) -> int:
        return len(self.programs)

    def init(
        self,
        seed: int = 0,
        params: Any = None,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> TrainState:
        """Return the state of all members before the first step.

        Args:
            seed: of what members share: the order of the data in ``fit``. Weights and random
                numbers of a member follow from its own seed.
            params: pretrained values by path, for every member; see :meth:`Program.init`.
            device: where the state goes.
            options: ``only`` and ``rename``, which choose among ``params``.
        """
        pairs = zip(self.programs, self.seeds, strict=True)
        each = (program.init(own, params, device, **options) for program, own in pairs)
        return states.together(each, len(self), named.held(self.values), seed)

    def member(self, state: TrainState, index: int) -> TrainState:
        """Return a copy of the state of one member, for ``programs[index]``.

        Where :meth:`replaced` has changed its hyperparameters, it is one for
        ``pop.current(state).programs[index]``.
        """
        self.require(state)
        return states.member(state, self._index(index))

    def stacked(self, each: Sequence[TrainState], seed: int = 0) -> TrainState:
        """Return the state of all members from one of each, the opposite of :meth:`member`.

        The state of one member does not hold its hyperparameters; they are those of this
        population. After :meth:`replaced`, stack by the population that has the new ones,
        ``pop.current(state).stacked([...])``.

        Args:
            each: states of ``programs``, in their order, all after the same number of steps.
            seed: of what members share, as for :meth:`init`.

        Raises:
            ConfigurationError: there are fewer or more, or they differ in more than values.
        """
        if len(each) != len(self):
            raise ConfigurationError(
                f"stacked: expected {len(self)} states, one for each member, got {len(each)}"
            )
        return states.together(each, len(self), named.held(self.values), seed)

    def current(self, state: TrainState) -> Self:
        """Return the population whose ``programs`` have the hyperparameters that a state holds."""
        self.require(state)
        values = {**self.values, **states.held_by(state)}
        return self._with(self._hyperparameters(state)[0], values, self.seeds)

    def only(self, state: TrainState, indices: Sequence[int]) -> tuple[Self, TrainState]:
        """Return a population of some members, and its state; they go on as they would have.

        Args:
            state: of all members.
            indices: of those that stay, in their new order.

        Raises:
            ConfigurationError: there is no such member, or none is left.
        """
        self.require(state)
        some = [self._index(index) for index in indices]
        if not some:
            raise ConfigurationError("only: expected at least one member, got none")
        all_values = {**self.values, **states.held_by(state)}
        programs = [self._hyperparameters(state)[0][index] for index in some]
        values = {path: tuple(own[n] for n in some) for path, own in all_values.items()}
        smaller = self._with(programs, values, tuple(self.seeds[index] for index in some))
        return smaller, states.only(state, some, named.held(values))

    def stopped(self, state: TrainState, indices: Sequence[int]) -> TrainState:
        """Return a state in which some members have stopped: steps train the others.

        A member that has stopped keeps its tensors and its counters, which :meth:`member` returns;
        its metrics are NaN. :meth:`replaced` makes it go on from a member that is running.
        """
        self.require(state)
        return states.stopped(state, [self._index(index) for index in indices])

    def running(self, state: TrainState) -> list[int]:
        """Return the members that have not stopped."""
        self.require(state)
        return states.running(state)

    def replaced(
        self, state: TrainState, index: int, by: int | None = None, **values: Any
    ) -> TrainState:
        """Return a state in which one member continues from another, or with other hyperparameters.

        Args:
            state: of all members.
            index: of the member that is replaced. It keeps its seed, and its schedule where members
                have schedules of their own.
            by: of the member whose weights, moments and hyperparameters it takes over.
            values: new hyperparameters by path, among those of the population.

        Raises:
            ConfigurationError: a name is not among the population's hyperparameters, a value is out
                of range, or of a field from which the state of the schedule was made, such as
                ``"lr.steps"``.
        """
        self.require(state)
        programs, _ = self._hyperparameters(state)
        index = self._index(index)
        if by is not None:
            state = named.replaced_by(state, programs, self.values, index, self._index(by))
        held = states.held_by(state)
        for path, value in values.items():
            held = named.with_value(self.programs[0], held, index, path, value)
        return states.holding(state, held)

    def check_value(self, path: str, value: float) -> None:
        """Refuse a value of a hyperparameter that :meth:`replaced` would refuse."""
        named.with_value(self.programs[0], named.held(self.values), 0, path, value)

    def _with(self, programs: list[Program], values: named.Values, seeds: tuple[int, ...]) -> Self:
        schedules: Any = {str(n): one.schedules for n, one in enumerate(programs)}
        return attrs.evolve(
            self, programs=programs, values=values, seeds=seeds, schedules=schedules
        )

    def _hyperparameters(self, state: TrainState) -> tuple[list[Program], dict[str, Any]]:
        """Return the programs and the device's hyperparameters that a state holds."""
        return self.memory.of(self.programs, self.values, states.held_by(state), state.device)

    def _index(self, index: int) -> int:
        found = operator.index(index) if hasattr(index, "__index__") else None
        if isinstance(index, bool) or found is None or not -len(self) <= found < len(self):
            raise ConfigurationError(
                f"expected the index of a member, 0 to {len(self) - 1}, got {index!r}"
            )
        return found % len(self)

    def require(self, state: object, batch: Batch = None) -> None:
        """Refuse a state of anything else; ``batch`` was given with it, for the message.

        Raises:
            UnsupportedError: it is no state.
            ConfigurationError: it is of one program, or of another population.
        """
        states.require_members(require_state(state, batch), len(self))
