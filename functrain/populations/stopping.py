"""Members that have stopped: a step of the others, and the state of each at its own end.

The state records where a member stopped, and its tensors stay as they were then. A step gathers the
members that are running, trains them as a smaller population, and puts them back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import attrs
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.loss import Metrics
from functrain.core.state import TrainState
from functrain.core.step import device_state
from functrain.errors import ConfigurationError
from functrain.populations import states
from functrain.populations.batches import of_members
from functrain.populations.graph import CompiledMembers
from functrain.populations.members import rows

# The class is in program.py, which imports this file.
Population: TypeAlias = Any


class Part(NamedTuple):
    """The members that a step computes.

    Attributes:
        population: of these, which may write to the state that it is given.
        held: what its state keeps of members and is no tensor.
    """

    population: Population
    held: dict[str, Any]


@attrs.define(eq=False)
class Parts:
    """The part made last. Steps between two stops have the same; it changes no result."""

    seen: tuple[Any, list[int], Part] | None = None

    def of(self, pop: Population, state: TrainState, chosen: list[int]) -> Part:
        """Return the part of some members."""
        held, seen = states.held_by(state), self.seen
        if seen is None or seen[0] is not held or seen[1] != chosen:
            some, small = pop.only(state, chosen)
            part = Part(attrs.evolve(some, donates=True), small.scheduler[states.MEMBERS])
            self.seen = seen = (held, chosen, part)
        return seen[2]


def computed(running: list[int], members: int, keeps_graphs: bool) -> list[int]:
    """Return the members that a step computes: those that are running, some of them twice.

    A population of one has other bytes than one of more, so at least two are computed. A compiled
    step halves their number only where it can, so that few graphs are compiled.

    Example:
        >>> computed([1, 4, 5], 8, keeps_graphs=False), computed([1, 4, 5], 8, keeps_graphs=True)
        ([1, 4, 5], [1, 4, 5, 1])
    """
    count = max(len(running), min(members, 2))
    if keeps_graphs:
        halved = members
        while halved // 2 >= count:
            halved //= 2
        count = halved
    return [*running, *running[:1] * (count - len(running))]


def train_rest(pop: Population, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """Make a step of the members that are running; the others stay as they are.

    Metrics of members that have stopped are NaN.
    """
    running = states.running(state)
    if not running:
        raise ConfigurationError(
            f"train_step: all {len(pop)} members of this state have stopped. Take one out, "
            "pop.member(state, i), and train it with pop.programs[i]"
        )
    chosen = computed(running, len(pop), isinstance(pop.device_step, CompiledMembers))
    given = batch if pop.batches == "shared" else of_members(batch, len(pop), chosen)
    part = pop.parts.of(pop, state, chosen)
    after, metrics = part.population.train_step(states.only(state, chosen, {}, part.held), given)
    wide = {name: _widened(values, running, len(pop)) for name, values in metrics.items()}
    return _put_back(state, after, running), wide


def with_members_of(state: TrainState, other: TrainState, indices: Iterable[int]) -> TrainState:
    """Return a state whose members are those of another state where named, with memory of its own.

    Each of these members is recorded as one that stands where the other state does, or stopped.
    """
    some = list(indices)
    new = states.with_rows(state, other, rows(device_state(other), some), some)
    there = states.stops(states.stopped(other, some))
    stops = {**states.stops(state), **{str(index): there[str(index)] for index in some}}
    held, theirs = states.held_by(state), states.held_by(other)
    own = {
        path: tuple((theirs[path] if n in some else each)[n] for n in range(len(each)))
        for path, each in held.items()
    }
    new = new if own == held else states.holding(new, own)
    return states.with_stops(new, {str(i): stops[str(i)] for i in sorted(map(int, stops))})


def _put_back(state: TrainState, after: TrainState, running: list[int]) -> TrainState:
    each = {str(index): after.scheduler[str(n)] for n, index in enumerate(running)}
    moved = attrs.evolve(after, scheduler={**state.scheduler, **each})
    first = rows(device_state(after), slice(len(running)))
    return states.with_rows(state, moved, first, running)


def _widened(values: Tensor, running: list[int], members: int) -> Tensor:
    values = values if values.is_floating_point() else values.double()
    whole = values.new_full((members,), math.nan)
    return states.copied_in(whole, values[: len(running)], running)
