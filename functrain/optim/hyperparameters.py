"""Validators of hyperparameters: a 0-dim tensor is accepted wherever a number is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import attrs
from torch import Tensor

from functrain.core.optimizer import Optimizer
from functrain.errors import ConfigurationError
from functrain.errors.validators import BOOLEAN, Validator, integer, number, refused

Attribute: TypeAlias = "attrs.Attribute[Any]"

any_number = number(tensors=True)
not_negative = number(minimum=0, tensors=True)
not_positive = number(maximum=0, tensors=True)
positive = number(above=0, tensors=True)
fraction = number(minimum=0, below=1, tensors=True)
share = number(minimum=0, maximum=1, tensors=True)
at_least_one = number(minimum=1, tensors=True)
count = integer(minimum=1)
whole = integer(minimum=0)
flag = BOOLEAN
an_optimizer = Validator(
    lambda value: isinstance(value, Optimizer) and not isinstance(value, type),
    "an optimizer such as AdamW(lr=1e-3)",
)


def is_zero(value: float | Tensor) -> bool:
    """Return whether a hyperparameter is the number 0, so that its term can be left out."""
    return not isinstance(value, Tensor) and value == 0


def rate(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a learning rate: a number from 0 up, a 0-dim tensor, or a schedule."""
    name = f"{type(instance).__name__}: {attribute.name}"
    if isinstance(value, type):
        raise refused(name, "a number or a schedule, not a class", value)
    if isinstance(value, Iterable) and not isinstance(value, str | Tensor):
        expected = "a number or a schedule (parameters are in the state, not in the optimizer)"
        raise refused(name, expected, value)
    if type(value).__module__.startswith("torch.optim.lr_scheduler"):
        kind = type(value).__name__
        raise ConfigurationError(
            f"{name}: expected a number or a schedule, got a scheduler of torch, which is bound to "
            f"an optimizer. Write functrain.schedules.from_torch(lr_scheduler.{kind}, lr=0.1, ...)"
        )
    if not callable(value):
        not_negative(instance, attribute, value)


def fractions(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a pair of numbers in [0, 1)."""
    _check_pair(instance, attribute, value, fraction)


def epsilons(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a pair of finite numbers from 0 up, the first of which may be None."""
    given = value if not isinstance(value, tuple) or value[:1] != (None,) else (0, *value[1:])
    _check_pair(instance, attribute, given, not_negative)


def _check_pair(instance: object, attribute: Attribute, value: object, each: Validator) -> None:
    name = f"{type(instance).__name__}: {attribute.name}"
    if not isinstance(value, tuple) or len(value) != 2:
        raise refused(name, f"two numbers, each {each.expected}", value)
    for position, one in enumerate(value):
        each.check(f"{name}[{position}]", one)


def as_tuple(value: Sequence[Any]) -> Any:
    """Return a list, as configuration files have it, as a tuple."""
    return tuple(value) if isinstance(value, list) else value
