"""States of all members: stacked from those of one each, split, chosen, replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.rng import Rng
from functrain.core.state import Counters, TrainState
from functrain.core.step import device_state
from functrain.errors import ConfigurationError
from functrain.optim.update_counts import aligned
from functrain.populations.members import combined, member_of, rows, stacked
from functrain.transforms.graph.inputs import flatten

MEMBERS = "members"
"""The key in ``state.scheduler`` of what differs between members and is no tensor."""

_STOPPED = "stopped"
_COUNTS = ("step", "epoch", "batch", "samples", "empty")


def together(
    states: Iterable[TrainState], members: int, held: dict[str, Any], seed: int
) -> TrainState:
    """Return the state of all members, with the hyperparameters ``held`` and a shared ``seed``."""
    scheduler, seeds, counters = dict[str, Any](), list[int](), list[Counters]()

    def parts() -> Iterator[dict[str, Any]]:
        for number, state in enumerate(states):
            counters.append(state.counters)
            _require_same_counts(counters[0], state.counters, number)
            scheduler[str(number)] = state.scheduler
            seeds.append(state.rng.seed)
            yield device_state(state)

    tensors = stacked(parts(), members, "state")
    scheduler[MEMBERS] = {"seeds": tuple(seeds), "hyperparameters": held}
    return _state(tensors, scheduler, Rng(seed), counters[0])


def member(state: TrainState, index: int) -> TrainState:
    """Return the state of one member, with memory of its own."""
    counts: dict[str, Any] = stops(state).get(str(index), {})
    counters = attrs.evolve(state.counters, **counts)
    tensors, rng = member_of(device_state(state), index), Rng(seeds_of(state)[index])
    return _state(tensors, state.scheduler[str(index)], rng, counters)


def only(
    state: TrainState,
    indices: Sequence[int],
    held: dict[str, Any],
    members: dict[str, Any] | None = None,
) -> TrainState:
    """Return the state of some members, with memory of its own.

    ``members`` has what differs between them and is no tensor, if it is known.
    """
    scheduler = {str(n): state.scheduler[str(index)] for n, index in enumerate(indices)}
    if members is None:
        seeds = tuple(seeds_of(state)[index] for index in indices)
        members = {"seeds": seeds, "hyperparameters": held}
        before = [stops(state).get(str(index)) for index in indices]
        if stop := {str(n): one for n, one in enumerate(before) if one is not None}:
            members[_STOPPED] = stop
    tensors = rows(device_state(state), list(indices))
    return _state(tensors, {**scheduler, MEMBERS: members}, state.rng, state.counters)


def copied_over(state: TrainState, index: int, by: int, schedule: bool) -> TrainState:
    """Return a state in which one member has the tensors, and maybe the schedule, of another."""
    tensors = combined(torch.clone, device_state(state))
    for leaf in flatten(tensors):
        leaf[index] = leaf[by]
    scheduler = dict(state.scheduler)
    if schedule:
        scheduler[str(index)] = scheduler[str(by)]
    found = _state(tensors, scheduler, state.rng, state.counters)
    stop = {key: one for key, one in stops(state).items() if key != str(index)}
    if str(by) in stops(state):
        stop[str(index)] = stops(state)[str(by)]
    return with_stops(found, stop)


def with_rows(
    state: TrainState, other: TrainState, tensors: dict[str, Any], indices: Sequence[int]
) -> TrainState:
    """Return a state whose members have rows of tensors, schedules and counters of another one."""
    before = {**device_state(state), "optimizer": aligned(state.optimizer, other.optimizer)}
    new = combined(lambda own, row: copied_in(own, row, indices), before, tensors)
    each = {str(index): other.scheduler[str(index)] for index in indices}
    return _state(new, {**state.scheduler, **each}, state.rng, other.counters)


def copied_in(whole: Tensor, rows: Tensor, indices: Sequence[int]) -> Tensor:
    """Return a tensor with other rows."""
    return whole.index_copy(0, torch.tensor(indices, device=whole.device), rows)


def _state(
    tensors: dict[str, Any], scheduler: dict[str, Any], rng: Rng, counters: Counters
) -> TrainState:
    counters = attrs.evolve(counters, skipped=tensors.pop("skipped"))
    return TrainState(**tensors, scheduler=scheduler, rng=rng, counters=counters)


def is_population(state: object) -> bool:
    """Return whether a state is that of a population."""
    return isinstance(state, TrainState) and MEMBERS in state.scheduler


def seeds_of(state: TrainState) -> tuple[int, ...]:
    """Return the seeds of all members."""
    seeds: tuple[int, ...] = state.scheduler[MEMBERS]["seeds"]
    return seeds


def held_by(state: TrainState) -> dict[str, Any]:
    """Return the hyperparameters that a state holds, by path."""
    held: dict[str, Any] = state.scheduler[MEMBERS]["hyperparameters"]
    return held


def holding(state: TrainState, held: dict[str, Any]) -> TrainState:
    """Return a state with other hyperparameters."""
    own = {**state.scheduler[MEMBERS], "hyperparameters": held}
    return attrs.evolve(state, scheduler={**state.scheduler, MEMBERS: own})


def stops(state: TrainState) -> dict[str, dict[str, int]]:
    """Return where each member stopped that has stopped: its counters by name."""
    found: dict[str, dict[str, int]] = state.scheduler[MEMBERS].get(_STOPPED, {})
    return found


def with_stops(state: TrainState, stop: dict[str, dict[str, int]]) -> TrainState:
    """Return a state with another record of members that have stopped."""
    if stop == stops(state):
        return state
    rest = {name: one for name, one in state.scheduler[MEMBERS].items() if name != _STOPPED}
    own = {**rest, _STOPPED: stop} if stop else rest
    return attrs.evolve(state, scheduler={**state.scheduler, MEMBERS: own})


def stopped(state: TrainState, indices: Iterable[int]) -> TrainState:
    """Return a state in which some members train no more; those that have stopped stay so."""
    now = {name: getattr(state.counters, name) for name in _COUNTS}
    before = stops(state)
    all_stops = {**{str(index): now for index in indices}, **before}
    return with_stops(state, {key: all_stops[key] for key in sorted(all_stops, key=int)})


def at_one_place(state: TrainState) -> TrainState:
    """Return a state whose members go on where all have stopped at the same place, else itself."""
    places: list[Any] = list(stops(state).values())
    if running(state) or any(place != places[0] for place in places):
        return state
    counters = attrs.evolve(state.counters, **places[0])
    return with_stops(attrs.evolve(state, counters=counters), {})


def running(state: TrainState) -> list[int]:
    """Return the members that have not stopped."""
    members, stop = len(seeds_of(state)), stops(state)
    return [index for index in range(members) if str(index) not in stop]


def require_members(state: TrainState, members: int) -> None:
    """Refuse a state that is not of so many members."""
    if MEMBERS not in state.scheduler:
        raise ConfigurationError(
            "expected the state of a population, got that of one program. Begin with pop.init(), "
            "or make one of several states: pop.stacked([state, ...])"
        )
    found = len(seeds_of(state))
    if found != members:
        raise ConfigurationError(
            f"expected a state of {members} members, got one of {found}. A state belongs to its "
            "population: after pop, state = pop.only(state, [...]) use the new pop"
        )


def _require_same_counts(first: Counters, other: Counters, number: int) -> None:
    for name in _COUNTS:
        mine, theirs = getattr(first, name), getattr(other, name)
        if mine != theirs:
            raise ConfigurationError(
                f"stacked: expected states that stand at the same place, but counters.{name} is "
                f"{mine} in member 0 and {theirs} in member {number}"
            )
