"""Limits of the batches that a run reads, for a quick try; the run records them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from functrain.data import as_source
from functrain.data.source import LimitedSource
from functrain.errors import RunChangedError
from functrain.errors.validators import integer, optional

_AT_LEAST_ONE = optional(integer(minimum=1))


@attrs.frozen
class BatchLimits:
    """How many batches a run reads at most; ``None`` for all.

    Attributes:
        limit_train_batches: of the training data in each epoch.
        limit_eval_batches: of each evaluation set.
    """

    limit_train_batches: int | None = attrs.field(default=None, validator=_AT_LEAST_ONE)
    limit_eval_batches: int | None = attrs.field(default=None, validator=_AT_LEAST_ONE)

    def train(self, data: Any) -> Any:
        """Return the training data with epochs that end at the limit."""
        limit = self.limit_train_batches
        return data if limit is None else LimitedSource(as_source(data), limit)

    def describe(self) -> dict[str, int]:
        """Return those that are set, as checkpoints record them."""
        return attrs.asdict(self, filter=lambda _, value: value is not None)

    def check(self, info: dict[str, Any], path: Path) -> None:
        """Refuse to resume a run under other limits.

        Its epochs would have another length from there on, and its best would be of other data.
        """
        before = info.get("batch_limits", {})
        if before != self.describe():
            raise RunChangedError(
                f"the run in {path.parent} was made with {_shown(before)}, and this call has "
                f"{_shown(self.describe())}. Choose another directory for a run of its own, or "
                "give the same limits to continue that one"
            )


UNLIMITED = BatchLimits()


def _shown(limits: dict[str, int]) -> str:
    listed = ", ".join(f"{name}={value}" for name, value in limits.items())
    return listed or "no limit of batches"
