"""The configuration of a run as trackers take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

Config = Mapping[str, Any]


@attrs.define(eq=False)
class Configured:
    """A destination that also takes the configuration of the run.

    Attributes:
        given: what the user gave instead or in addition. Any other form than a mapping that a
            tracker takes is kept as it is.
        config: both, once the run has begun.
    """

    given: Any
    config: Any = attrs.field(init=False, factory=dict)

    def configure(self, config: Config) -> None:
        """Keep the configuration of the run until the destination is opened."""
        given = {} if self.given is None else self.given
        self.config = {**config, **given} if isinstance(given, Mapping) else given


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
