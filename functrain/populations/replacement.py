"""Another value of a hyperparameter for one member, or another member in its place."""

from __future__ import annotations

import contextlib
from typing import Any

from functrain.core import learning_rate
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError
from functrain.populations import states
from functrain.populations.hyperparameters import Values, plain, programs, put
from functrain.transforms.hyperparameters import find, replaced, with_recipe


def replaced_by(
    state: TrainState, programs: list[Program], values: Values, index: int, by: int
) -> TrainState:
    """Return a state in which one member has the tensors and the hyperparameters of another."""
    before = states.held_by(state)
    alike = programs[index].schedules == programs[by].schedules or before.keys() == values.keys()
    held = {
        path: put(own, index, own[by])
        for path, own in before.items()
        if alike or not is_scheduler_state(programs[index], path)
    }
    state = states.copied_over(state, index, by, schedule=alike)
    return states.holding(state, {**before, **held})


def with_value(
    program: Program, values: Values, member: int, path: str, value: Any
) -> dict[str, tuple[Any, ...]]:
    """Return the hyperparameters that a state holds with another one for one member."""
    if path not in values:
        raise ConfigurationError(
            f"replaced: expected one of {', '.join(values) or 'no hyperparameter'}, which are "
            f"numbers of each member, got {path!r}. Name it when the population is made"
        )
    if callable(value):
        raise ConfigurationError(
            f"replaced: {path!r} is a number in every member, got {value!r}. Give a number, or "
            "make the population with a schedule for each member"
        )
    each = put(values[path], member, plain(value))
    made = programs(program, {path: each}, len(each))
    if is_scheduler_state(made[member], path):
        others = [name for name in values if not is_scheduler_state(made[member], name)]
        raise ConfigurationError(
            f"replaced: {path!r} was read when the state of the schedule was made, so a new one "
            f"would have no effect. These can be replaced: {', '.join(others) or 'none'}"
        )
    return {**values, path: each}


def is_scheduler_state(program: Program, path: str) -> bool:
    """Return whether the state of a schedule is made of a hyperparameter, and a step reads that."""
    one = find(program.recipe, path)
    if not one.is_rate or type(one.value) not in (int, float):
        return False
    mine = _scheduler_states(program)
    # Some values, such as a warmup longer than the schedule, are refused by it.
    for value in (one.value + 1, one.value / 2, one.value * 2):
        with contextlib.suppress(ConfigurationError, TypeError):
            other = with_recipe(program, replaced(program.recipe, {path: type(one.value)(value)}))
            if _scheduler_states(other) != mine:
                return True
    return False


def _scheduler_states(program: Program) -> list[Any]:
    """Return the scheduler's state at the start, and with the lengths of two runs filled in."""
    start, found = learning_rate.init(program.schedules), []
    for steps in (1_000, 1_000_000):
        with contextlib.suppress(ConfigurationError):
            found.append(learning_rate.with_horizon(program.schedules, start, steps))
    return [start, *found]
