"""The content of a checkpoint of a run."""

from __future__ import annotations

from typing import Any

import attrs

from functrain.core.state import TrainState


@attrs.frozen(eq=False)
class LoopState:
    """The state of the loop: all decisions so far, no clock.

    Attributes:
        best: ``{"value", "step"}`` of the monitored metric; values are ``None`` before the first.
        early_stop: state of the early-stopping rule, empty without one.
        sums: by metric, the weighted sum and the weight over the present epoch.
        ``owed``: pending work of the last step, left by an interruption; a key of the format.
        log_bytes: length of ``metrics.jsonl``.
    """

    best: dict[str, Any]
    early_stop: dict[str, Any]
    sums: dict[str, list[float]]
    owed: dict[str, Any] | None
    log_bytes: int

    @classmethod
    def initial(cls, early_stop: dict[str, Any]) -> LoopState:
        """Return the state before the first step."""
        return cls({"value": None, "step": None}, early_stop, {}, None, 0)


@attrs.frozen(eq=False)
class RunState:
    """Everything that a resumed run needs.

    Attributes:
        train: the training state.
        loop: the loop's decisions.
        data: the data source's state, where it has one.
        listeners: states of listeners that have ``state_dict``, by name.
    """

    train: TrainState
    loop: LoopState
    data: Any
    listeners: dict[str, Any]
