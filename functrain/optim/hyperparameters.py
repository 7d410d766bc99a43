"""Checks of hyperparameters: numbers are checked, tensors are taken as they are.

A tensor may be traced, vmapped or on another device, so its value is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, TypeAlias

import attrs
from torch import Tensor

from functrain.errors import ConfigurationError

Attribute: TypeAlias = "attrs.Attribute[Any]"


def is_zero(value: float | Tensor) -> bool:
    """Whether a hyperparameter is the number 0, so that its term can be left out."""
    return not isinstance(value, Tensor) and value == 0


def rate(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a learning rate: a number from 0 up, a 0-dim tensor, or a schedule."""
    if isinstance(value, type):
        raise _refused(instance, attribute.name, "a number or a schedule, not a class", value)
    if isinstance(value, Iterable) and not isinstance(value, str | Tensor):
        expected = "a number or a schedule (parameters are in the state, not in the optimizer)"
        raise _refused(instance, attribute.name, expected, value)
    if not callable(value):
        not_negative(instance, attribute, value)


def not_negative(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a finite number from 0 up, or a 0-dim tensor."""
    _in_range(instance, attribute.name, value, math.inf)


def fraction(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a number in [0, 1), or a 0-dim tensor."""
    _in_range(instance, attribute.name, value, 1.0)


def not_positive(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a finite number up to 0, or a 0-dim tensor."""
    if not isinstance(value, Tensor):
        number(instance, attribute, value)
        if value > 0:  # type: ignore[operator]
            raise _refused(instance, attribute.name, "a number up to 0", value)


def at_least_one(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a finite number from 1 up, or a 0-dim tensor."""
    _in_range(instance, attribute.name, value, math.inf, low=1.0)


def count(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a whole number from 1 up."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refused(instance, attribute.name, "a whole number from 1 up", value)


def whole(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a whole number from 0 up."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _refused(instance, attribute.name, "a whole number from 0 up", value)


def share(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a number in [0, 1], or a 0-dim tensor."""
    not_negative(instance, attribute, value)
    if not isinstance(value, Tensor) and value > 1:  # type: ignore[operator]
        raise _refused(instance, attribute.name, "in [0, 1]", value)


def number(instance: object, attribute: Attribute, value: object) -> None:
    """Accept any finite number, or a 0-dim tensor."""
    _in_range(instance, attribute.name, value, math.inf, low=-math.inf)


def flag(instance: object, attribute: Attribute, value: object) -> None:
    """Accept True or False."""
    if not isinstance(value, bool):
        raise _refused(instance, attribute.name, "True or False", value)


def fractions(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a pair of numbers in [0, 1)."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise _refused(instance, attribute.name, "two numbers in [0, 1)", value)
    for position, beta in enumerate(value):
        _in_range(instance, f"{attribute.name}[{position}]", beta, 1.0)


def epsilons(instance: object, attribute: Attribute, value: object) -> None:
    """Accept a pair of finite numbers from 0 up, the first of which may be None."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise _refused(instance, attribute.name, "two numbers from 0 up", value)
    for position, eps in enumerate(value):
        if position or eps is not None:
            _in_range(instance, f"{attribute.name}[{position}]", eps, math.inf)


def as_tuple(value: Any) -> Any:
    """Turn a list, as configuration files have it, into a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _in_range(instance: object, name: str, value: object, high: float, low: float = 0.0) -> None:
    if isinstance(value, Tensor):
        if value.ndim:
            raise _refused(instance, name, "a number or a tensor without dimensions", value)
        return
    bound = f"a finite number from {low:g} up" if high == math.inf else f"in [{low:g}, {high:g})"
    expected = "a finite number" if low == -math.inf else bound
    if type(value) is bool or not isinstance(value, Real):
        raise _refused(instance, name, expected, value)
    if not (low <= float(value) < high and math.isfinite(value)):
        raise _refused(instance, name, expected, value)


def _refused(instance: object, name: str, expected: str, value: object) -> ConfigurationError:
    got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    return ConfigurationError(f"{type(instance).__name__}: {name} must be {expected}, got {got}")
