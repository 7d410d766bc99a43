"""Which programs can be members of one population, and by which hyperparameters they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functrain.core.module_tensors import shown_layers
from functrain.core.program import Program
from functrain.errors import ConfigurationError
from functrain.populations.construct import population
from functrain.transforms.hyperparameters import hyperparameters, replaced

_EQUAL = (
    *("optimizer", "clip_norm", "clip_value", "accumulate", "precision", "ema"),
    *("nonfinite", "sharpness", "parts"),
)


def groups(programs: Sequence[Program]) -> list[tuple[list[int], dict[str, list[Any]]]]:
    """Divide programs into as few populations as their structure allows, in order.

    Programs belong together if they differ in numbers that a member may have of its own. Their
    losses are not compared.

    Args:
        programs: eager ones.

    Returns:
        For each population the indices of its programs, and by path the hyperparameters by which
        they differ, one of each.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> def made(width, **options):
        ...     return ft.program(torch.nn.Linear(width, 1), loss, ft.optim.SGD(**options))
        >>> programs = [made(2, lr=0.1), made(3, lr=0.1), made(2, lr=0.2, weight_decay=0.1)]
        >>> groups(programs)
        [([0, 2], {'lr': [0.1, 0.2], 'weight_decay': [0.0, 0.1]}), ([1], {})]
    """
    found, rest = [], list(range(len(programs)))
    while rest:
        first = programs[rest[0]]
        own = [n for n in rest if n == rest[0] or _are_alike(first, programs[n])]
        found.append((own, _varied([programs[n] for n in own])))
        rest = [n for n in rest if n not in own]
    return found


def _are_alike(first: Program, other: Program) -> bool:
    if _structure(first) != _structure(other):
        return False
    values = _varied([first, other])
    try:
        recipe = replaced(other.recipe, {path: each[0] for path, each in values.items()})
        population(first, values, seeds=[0, 0])
    except ConfigurationError:  # the values decide what a step computes
        return False
    return all(getattr(recipe, name) == getattr(first.recipe, name) for name in _EQUAL)


def _varied(programs: Sequence[Program]) -> dict[str, list[Any]]:
    """Return the numbers in which programs differ, by path."""
    each = [hyperparameters(program.recipe) for program in programs]
    columns = {path: [one[path].value for one in each] for path in each[0]}
    return {
        path: values
        for path, values in columns.items()
        if any(value != values[0] for value in values) and not any(map(callable, values))
    }


def _structure(program: Program) -> Any:
    model = program.fixed.model
    shapes = {path: (value.shape, value.dtype) for path, value in model.params.items()}
    paths = set(hyperparameters(program.recipe))
    return shapes, program.fixed.trainable, shown_layers(model.module), paths
