"""Group parameters by name, and compute a norm for each group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from functrain.core.clipping import global_norm
from functrain.core.program import Program
from functrain.core.state import Tensors
from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest
from functrain.populations.program import Population
from functrain.tree.nodes import matches

Pattern: TypeAlias = str | Sequence[str] | Callable[[str, Tensor], bool]
Patterns: TypeAlias = Mapping[str, Pattern]


def grouped(program: Program, patterns: Patterns | None) -> dict[str, list[str]]:
    """Return the trainable paths of each group.

    Args:
        program: the program with the parameters.
        patterns: one or several globs, or a predicate (path, tensor), by the group's name. The
            first match gets a parameter; a parameter without a match belongs to no group. By
            default each direct child of the model is a group.

    Raises:
        ConfigurationError: a group would be empty.

    Example:
        >>> import functrain as ft, torch
        >>> from torch.nn import Linear, Sequential, Tanh
        >>> model = Sequential(Linear(2, 3), Tanh(), Linear(3, 1))
        >>> program = ft.program(model, lambda m, b: m(b).mean(), ft.optim.SGD(lr=0.1))
        >>> grouped(program, {"biases": "*.bias"})
        {'biases': ['0.bias', '2.bias']}
        >>> list(grouped(program, None))
        ['0', '2']
    """
    if isinstance(program, Population):
        raise ConfigurationError(
            "this listener takes one program, got a population, whose members have norms of their "
            'own. The metric "grad_norm" has that of each member'
        )
    paths = program.fixed.trainable
    groups: dict[str, list[str]] = {name: [] for name in patterns or {}}
    for path in paths:
        if patterns is None:
            groups.setdefault(path.partition(".")[0], []).append(path)
            continue
        tensor = program.fixed.model.params[path]
        name = next((name for name in groups if matches(patterns[name], path, tensor)), None)
        if name is not None:
            groups[name].append(path)
    for name, pattern in (patterns or {}).items():
        if not groups[name]:
            raise ConfigurationError(
                f"group {name!r}: {pattern!r} matches none of the {len(paths)} trainable "
                f"parameters that no earlier group has{nearest(str(pattern), paths)}"
            )
    return groups


def norms(groups: Mapping[str, list[str]], tensors: Tensors) -> dict[str, Tensor]:
    """Return the 2-norm of each group that has tensors, as 0-dim tensors on their device.

    Example:
        >>> import torch
        >>> norms({"all": ["a", "b"]}, {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
        {'all': tensor(5.)}
    """
    found = {name: [tensors[p] for p in paths if p in tensors] for name, paths in groups.items()}
    return {name: global_norm(values) for name, values in found.items() if values}
