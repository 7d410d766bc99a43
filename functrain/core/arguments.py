"""What the functions of a program are given, checked where a mistake would be told of late."""

from __future__ import annotations

import operator
from typing import Any

from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, UnsupportedError


def seed(given: Any) -> int:
    """A root seed.

    Raises:
        ConfigurationError: it is no whole number.

    Example:
        >>> seed("7")
        Traceback (most recent call last):
        functrain.errors.ConfigurationError: seed must be a whole number, got a str
    """
    try:
        return operator.index(given)
    except TypeError:
        hint = "; pretrained weights go to params=" if isinstance(given, dict) else ""
        got = type(given).__name__
        raise ConfigurationError(f"seed must be a whole number, got a {got}{hint}") from None


def not_a_state(given: object, batch: object) -> UnsupportedError:
    """What to raise for something else in the place of a state."""
    if isinstance(given, tuple) and given and isinstance(given[0], TrainState):
        hint = "train_step returns two values: state, metrics = program.train_step(state, batch)"
    elif isinstance(batch, TrainState):
        hint = "the state comes first, the batch second"
    else:
        hint = "begin with state = program.init(seed=0)"
    return UnsupportedError(f"expected a TrainState, got a {type(given).__name__}: {hint}")
