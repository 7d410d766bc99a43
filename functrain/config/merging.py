"""Plain data put over other plain data, by the rules of OmegaConf and Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MISSING = "???"


def merged(below: Any, above: Any) -> Any:
    """What two layers say together: mappings key by key, of everything else the upper one.

    Args:
        below: plain data; not changed.
        above: what goes over it. ``???`` leaves what is there.

    Example:
        >>> merged({"lr": 0.1, "betas": [0.9, 0.99]}, {"betas": [0.5], "eps": 1})
        {'lr': 0.1, 'betas': [0.5], 'eps': 1}
    """
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: merged(below[key], value) for key, value in above.items() if key in below}
        return {**below, **above, **both}
    return below if isinstance(above, str) and above == MISSING else above


def wrapped(keys: Sequence[str], value: Any) -> Any:
    """A value inside of mappings.

    Example:
        >>> wrapped(["optimizer", "lr"], 0.1)
        {'optimizer': {'lr': 0.1}}
    """
    for key in reversed(keys):
        value = {key: value}
    return value
