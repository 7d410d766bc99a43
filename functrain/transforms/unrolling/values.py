"""The values of hyperparameters that differentiable training is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.core import learning_rate
from functrain.errors import ConfigurationError
from functrain.optim.hyperparameters import not_negative
from functrain.transforms.unrolling.torch_internals import is_transforming

# A learning rate, or a function from the number of a step to one.
Rate = Tensor | Callable[[int], Any]
Value = Any


def as_mapping(values: Mapping[str, Value] | None) -> Mapping[str, Value]:
    """Return values by path."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ConfigurationError(
            "hyperparameters: expected a dict such as {'lr': torch.tensor(0.1, "
            f"requires_grad=True)}}, got a {type(values).__name__}"
        )
    return values


def wide(path: str, value: Value, dtype: torch.dtype) -> Value:
    """Return a value in the dtype in which rules compute with numbers."""
    if isinstance(value, tuple | list):
        return tuple(wide(path, one, dtype) for one in value)
    if not isinstance(value, Tensor):
        return value
    if value.ndim or not value.is_floating_point():
        raise ConfigurationError(
            f"hyperparameter {path!r}: expected a number or a 0-dim tensor of floats, got a tensor "
            f"of shape {list(value.shape)} and {value.dtype}"
        )
    return value.to(dtype)


def number(value: Value) -> Value:
    """Return a value with Python numbers for its tensors, where torch can read them.

    Under ``vmap`` it cannot.
    """
    if isinstance(value, tuple | list):
        return tuple(map(number, value))
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        return value
    try:
        return value.item()
    except RuntimeError:
        if not is_transforming():
            raise
        return value


def with_rate(
    found: learning_rate.Rate, names: tuple[str, ...], value: Rate, step: int
) -> learning_rate.Rate:
    """Return the learning rates of a step with another one."""
    if names:
        return {**found, names[0]: with_rate(found[names[0]], names[1:], value, step)}
    if not callable(value):
        return value
    name, rate = f"lr of step {step}", value(step)
    rate = wide(name, rate, rate.dtype) if isinstance(rate, Tensor) else rate
    not_negative.check(f"hyperparameter {name!r}", number(rate))
    return rate
