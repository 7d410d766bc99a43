"""The configuration of a run as trackers take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Config = Mapping[str, Any]


def flat(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values by their dotted paths.

    Example:
        >>> dict(flat({"optimizer": {"type": "SGD", "lr": 0.1}}))
        {'optimizer.type': 'SGD', 'optimizer.lr': 0.1}
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def with_given(config: Config, given: Any) -> Any:
    """Return the configuration of a run, with what the user gave instead or in addition.

    Any other form than a mapping that a tracker takes is kept as it is.

    Example:
        >>> with_given({"clip_norm": None, "ema": None}, {"ema": "none", "note": "first"})
        {'clip_norm': None, 'ema': 'none', 'note': 'first'}
    """
    if given is None:
        return dict(config)
    return {**config, **given} if isinstance(given, Mapping) else given
