"""Checks of what a wrapper is given."""

from __future__ import annotations

from functrain.core.optimizer import Optimizer
from functrain.errors import ConfigurationError
from functrain.optim.hyperparameters import Attribute, is_zero, not_negative


def an_optimizer(instance: object, attribute: Attribute, value: object) -> None:
    """Accept an optimizer, not the class of one."""
    if isinstance(value, type) or not isinstance(value, Optimizer):
        raise ConfigurationError(
            f"{type(instance).__name__}: {attribute.name} must be an optimizer such as "
            f"AdamW(lr=1e-3), got {value!r}"
        )


def positive(instance: object, attribute: Attribute, value: float) -> None:
    """Accept a finite number above 0, or a 0-dim tensor."""
    not_negative(instance, attribute, value)
    if is_zero(value):
        raise ConfigurationError(
            f"{type(instance).__name__}: {attribute.name} must be above 0, got {value!r}"
        )
