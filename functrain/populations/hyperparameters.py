"""The hyperparameters of members: checked, and as the tensors that a step takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.program import Program
from functrain.core.recipe import Recipe
from functrain.errors import ConfigurationError
from functrain.optim import FromTorch
from functrain.optim.wrapping import nested
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


def put(each: tuple[Any, ...], member: int, value: Any) -> tuple[Any, ...]:
    """Return values with another one for one member."""
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
