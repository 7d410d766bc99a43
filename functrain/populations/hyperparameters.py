"""The hyperparameters of members: checked, replaced, and as the tensors that a step takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core import learning_rate
from functrain.core.program import Program
from functrain.core.recipe import Recipe
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError
from functrain.optim import FromTorch
from functrain.optim.wrapping import nested
from functrain.populations import states
from functrain.transforms.hyperparameters import find, refuse_gradient_hooks, replaced, with_recipe
from functrain.tree import items, path_string

Values = Mapping[str, tuple[Any, ...]]
"""By path, the value of each member."""


def checked(program: Program, given: Mapping[str, Sequence[Any]], members: int) -> dict[str, Any]:
    """Return hyperparameters as tuples, in the order of members."""
    values = {}
    for path, each in given.items():
        find(program.recipe, path)
        if isinstance(each, str) or not isinstance(each, Iterable):
            raise ConfigurationError(
                f"hyperparameter {path!r}: expected a list with a value for each of the {members} "
                f"members, got {each!r}"
            )
        one_each = tuple(map(plain, each))
        if len(one_each) != members:
            raise ConfigurationError(
                f"hyperparameter {path!r}: expected {members} values, one for each member, got "
                f"{len(one_each)}"
            )
        values[path] = one_each
    return values


def programs(program: Program, values: Values, members: int) -> list[Program]:
    """Return the program of each member."""
    each = [{path: own[n] for path, own in values.items()} for n in range(members)]
    found = [with_recipe(program, replaced(program.recipe, own)) for own in each]
    for path in values:
        _require_structure(program, path, values[path])
    return found


def held(values: Values) -> dict[str, Any]:
    """Return the hyperparameters that a state holds: numbers, not schedules."""
    return {path: each for path, each in values.items() if not any(map(callable, each))}


def replaced_by(
    state: TrainState, programs: list[Program], values: Values, index: int, by: int
) -> TrainState:
    """Return a state in which one member has the tensors and the hyperparameters of another."""
    before = states.held_by(state)
    alike = programs[index].schedules == programs[by].schedules or before.keys() == values.keys()
    held = {
        path: _put(own, index, own[by])
        for path, own in before.items()
        if alike or not _is_scheduler_state(programs[index], path)
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
    each = _put(values[path], member, plain(value))
    made = programs(program, {path: each}, len(each))
    if _is_scheduler_state(made[member], path):
        others = [name for name in values if not _is_scheduler_state(made[member], name)]
        raise ConfigurationError(
            f"replaced: {path!r} was read when the state of the schedule was made, so a new one "
            f"would have no effect. These can be replaced: {', '.join(others) or 'none'}"
        )
    return {**values, path: each}


def _is_scheduler_state(program: Program, path: str) -> bool:
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
            found.append(learning_rate.with_total_steps(program.schedules, start, steps))
    return [start, *found]


def _put(each: tuple[Any, ...], member: int, value: Any) -> tuple[Any, ...]:
    return (*each[:member], value, *each[member + 1 :])


def as_tensors(recipe: Recipe, values: Values, device: torch.device) -> dict[str, Any]:
    """Return those that the device part takes, each as a float64 tensor ``[members]``.

    Learning rates are left to the host.
    """
    return {
        path: _tensor(each, device)
        for path, each in values.items()
        if not find(recipe, path).is_rate
    }


def refuse_unmapped(program: Program) -> None:
    """Refuse programs whose step cannot be mapped over members."""
    recipe = program.recipe
    if any(isinstance(one, FromTorch) for one in nested(recipe.optimizer)):
        raise ConfigurationError(
            "population cannot take an optimizer of from_torch, whose class runs as ordinary "
            "Python; use the one of functrain.optim that is the same"
        )
    if recipe.precision != "float32":
        raise ConfigurationError(
            f"population trains in float32, and the program has precision={recipe.precision!r}: "
            "torch.func.vmap does not take the gradients of autocast"
        )
    refuse_gradient_hooks(program.fixed, "population", "train the members one by one")


def plain(value: Any) -> Any:
    """Return a number of any library as a Python number, and a list as a tuple."""
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    if isinstance(value, Tensor) or type(value).__module__ == "numpy":
        return value.item() if value.ndim == 0 else tuple(map(plain, value))
    return value


def _tensor(each: Sequence[Any], device: torch.device) -> Any:
    first = each[0]
    if isinstance(first, tuple):
        return tuple(_tensor(column, device) for column in zip(*each, strict=True))
    return None if first is None else torch.tensor(each, dtype=torch.float64, device=device)


def _require_structure(program: Program, path: str, each: Sequence[Any]) -> None:
    """Refuse values under which members would keep other tensors, or make other operations."""
    if find(program.recipe, path).is_rate:
        return
    for part in zip(*each, strict=True) if isinstance(each[0], tuple) else [each]:
        if any(one is None for one in part):
            raise ConfigurationError(
                f"hyperparameter {path!r}: expected a number for every member, got None for some; "
                "what is left out decides which operations a step makes"
            )
    fields = [torch.tensor(1.0) for _ in each[0]] if isinstance(each[0], tuple) else None
    varied = torch.tensor(1.0) if fields is None else tuple(fields)
    expected = _structure(program, path, varied)
    for number, value in enumerate(each):
        if _structure(program, path, value) != expected:
            raise ConfigurationError(
                f"hyperparameter {path!r} of member {number}: {value!r} decides which tensors the "
                "optimizer keeps, so such a member cannot be in one population with others. Give "
                "it another value, or leave it out of the hyperparameters where it is the same for "
                "all"
            )


def _structure(program: Program, path: str, value: Any) -> list[Any]:
    optimizer = replaced(program.recipe, {path: value}).optimizer
    params = program.fixed.model.params
    trained = {p: torch.empty_like(params[p], device="meta") for p in program.fixed.trainable}
    state = optimizer.init(trained)
    return [(path_string(p), getattr(leaf, "shape", None)) for p, leaf in items(state)]


def _require_names(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    if expected.keys() != found.keys():
        raise ConfigurationError(
            "expected the state of a population with the hyperparameters "
            f"{', '.join(expected) or 'none'}, got one with {', '.join(found) or 'none'}. A state "
            "belongs to its population; to train its members in another, take each out with "
            "pop.member(state, i) and give all to other.stacked([...])"
        )


@attrs.define(eq=False)
class Memory:
    """The hyperparameters seen last, with the programs and tensors made of them.

    A state of the next step has the same. It is a cache, and changes no result.

    Attributes:
        seen: the values, the device, and what was made; one value, since threads may share it.
    """

    seen: tuple[Any, torch.device, list[Program], dict[str, Any]] | None = None

    def of(
        self, start: list[Program], values: Values, held_now: Any, device: torch.device
    ) -> tuple[list[Program], dict[str, Any]]:
        """Return the programs of members, and the tensors that the device part takes."""
        seen = self.seen
        if seen is None or seen[0] is not held_now or seen[1] != device:
            _require_names(held(values), held_now)
            made, now = start, {**values, **held_now}
            if now != values:
                made = programs(start[0], now, len(start))
            tensors = as_tensors(start[0].recipe, now, device)
            self.seen = seen = (held_now, device, made, tensors)
        return seen[2], seen[3]
