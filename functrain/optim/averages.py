"""The places where an optimizer keeps the weights to evaluate with."""

from __future__ import annotations

from typing import Any

from functrain.core.optimizer import Averages, Optimizer


def declared(optimizer: Any, name: str | None = None) -> list[Averages] | None:
    """Return what an optimizer says, below a name if one is given.

    ``None`` stands for weights that only ``eval_params`` knows: its class overrides it and does not
    say what it returns.
    """
    says, does = (_owner(optimizer, method) for method in ("averages", "eval_params"))
    if does is Optimizer:
        return []
    if says is None or does not in says.__mro__:
        return None
    found: list[Averages] | None = optimizer.averages()
    return found if found is None or name is None else [one.below(name) for one in found]


def _owner(optimizer: Any, method: str) -> type | None:
    """Return the class that a method of an optimizer is from."""
    return next((kind for kind in type(optimizer).__mro__ if method in vars(kind)), None)
