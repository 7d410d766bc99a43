"""What a checkpoint of a run holds, and what ``fit`` gives back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from functrain.core.state import TrainState

if TYPE_CHECKING:
    from functrain.training.history import History


@attrs.frozen(eq=False)
class LoopState:
    """The loop's own part of the tree: all decisions so far, no clock.

    Attributes:
        best: ``{"value", "step"}`` of the monitored metric; values are ``None`` before the first.
        early_stop: state of the early-stopping rule, empty without one.
        sums: by metric, the weighted sum and the weight over the present epoch.
        owed: what is still to be done for the last step, where an interruption came between.
        log_bytes: length of ``metrics.jsonl``.
    """

    best: dict[str, Any]
    early_stop: dict[str, Any]
    sums: dict[str, list[float]]
    owed: dict[str, Any] | None
    log_bytes: int

    @classmethod
    def initial(cls, early_stop: dict[str, Any]) -> LoopState:
        """Before the first step."""
        return cls({"value": None, "step": None}, early_stop, {}, None, 0)


@attrs.frozen(eq=False)
class RunState:
    """Everything a run is resumed from.

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


@attrs.frozen(eq=False, repr=False)
class Run:
    """The result of ``fit``.

    Attributes:
        state: the last training state.
        history: one row a step.
        reason: ``max_steps``, ``max_epochs``, ``max_samples``, ``max_time``, ``early_stop``,
            ``listener``, ``interrupted`` or ``nonfinite``.
        detail: the reason in words.
        directory: where the run was written, or ``None``.
        best: ``{"value", "step"}`` of the monitored metric.
        seconds: time trained, over all resumptions.
        new_steps: updates made by this call; 0 where nothing was left to train.
    """

    state: TrainState
    history: History
    reason: str
    detail: str
    directory: Path | None
    best: dict[str, Any]
    seconds: float
    new_steps: int | None = None

    def __repr__(self) -> str:
        step = self.state.counters.step
        last = self.history.rows[-1] if self.history.rows else {}
        shown = ", ".join(
            f"{name}={value:.4g}"
            for name, value in last.items()
            if name == "loss" or name.startswith("eval")
        )
        if self.new_steps == 0:
            shown = f"nothing was trained by this call, {shown}"
        where = f", directory={str(self.directory)!r}" if self.directory else ""
        return f"Run(reason={self.reason!r}, step={step}, {shown}{where})"

    def _repr_html_(self) -> str:
        from functrain.view.display.runs import html

        return html(self)
