"""Whether an epoch has samples, so that no loop runs forever over data without any."""

from __future__ import annotations

import attrs

from functrain.core.state import Counters
from functrain.errors import EmptyDatasetError

MOST_EMPTY = 10_000  # in a row; data that has an end is refused at the end of an epoch


@attrs.define
class EpochProgress:
    """Progress of an epoch.

    Attributes:
        step: updates made when a batch last had samples.
        untrained: whether this epoch was read from its beginning and no batch has had samples.
        empty: batches without samples since that one.
    """

    epoch: int
    step: int
    untrained: bool
    empty: int = 0

    @classmethod
    def begin(cls, counters: Counters) -> EpochProgress:
        """Begin with an epoch, or with the rest of one."""
        return cls(counters.epoch, counters.step, counters.batch == 0)

    def after(self, counters: Counters, ends_epoch: bool) -> None:
        """Count a step; refuse an epoch without samples, and data that may have no end."""
        if counters.step != self.step:
            self.step, self.untrained, self.empty = counters.step, False, 0
            return
        self.empty += 1
        if ends_epoch or self.empty >= MOST_EMPTY:
            self.end()

    def end(self) -> None:
        """Refuse the epoch if it has ended without a sample."""
        if self.untrained or self.empty >= MOST_EMPTY:
            what = f"{self.empty} batches in a row without samples" if self.empty else "no batch"
            raise EmptyDatasetError(
                f"the data gave {what} in epoch {self.epoch}, so nothing can be trained on: "
                "check the dataset, its sampler or filter, and the collate function"
            )
