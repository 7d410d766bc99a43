"""The first batches of each epoch, for a quick try."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import attrs

from functrain.data.source import Source, Wrapper
from functrain.errors import UnsupportedError


@attrs.frozen(eq=False)
class LimitedSource(Wrapper):
    """A source whose epochs end after a number of batches, if not before.

    Example:
        >>> from functrain.data import as_source
        >>> source = LimitedSource(as_source([1, 2, 3, 4]), 2)
        >>> source.length, list(source.epoch(seed=0, epoch=5, start=1, saved=None))
        (2, [2])
    """

    data: Source
    limit: int

    @property
    def length(self) -> int | None:
        """The number of batches in an epoch; ``None`` if the data may have fewer than the limit."""
        whole = self.data.length
        return None if whole is None else min(whole, self.limit)

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """Yield the batches of an epoch from ``start`` on."""
        batches = self.data.epoch(seed, epoch, start, saved)
        for batch in islice(batches, max(0, self.limit - start)):
            if self.data.state() is not None:
                raise UnsupportedError(_with_a_state(self.data))
            yield batch

    def state(self) -> None:
        """Return ``None``: seed and position suffice."""


def _with_a_state(source: Source) -> str:
    held = getattr(source, "data", source)
    return (
        f"limit_train_batches: a {type(held).__name__} with a state or a generator of its own "
        "cannot end an epoch early and resume exactly. Give functrain.data.Batches, a DataLoader "
        "without generator=, or a part of the dataset, torch.utils.data.Subset(dataset, range(100))"
    )
