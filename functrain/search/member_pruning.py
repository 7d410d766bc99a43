"""Report the metrics of a population's members to their trials, and stop those that are pruned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from functrain.core.state import TrainState
from functrain.errors import ConfigurationError
from functrain.search.pruning import STEPS, PruningListener
from functrain.training import events
from functrain.training.early_stopping import Halving
from functrain.training.early_stopping.rule import State, find


@attrs.frozen
class Stopped:
    """Why a member has stopped.

    Attributes:
        reason: ``pruned``, ``nonfinite`` or ``early_stop``.
        step: the step after which it stopped.
    """

    reason: str
    detail: str
    step: int


class MemberPruning:
    """A listener and a rule: it reports at each evaluation, and then says which members stop.

    Attributes:
        trials: the ``optuna.Trial`` of each member; ``None`` where nothing is reported or pruned.
        raises: whether a step that is not finite fails a trial.
        stopped: by member, why it has stopped.
    """

    def __init__(
        self, trials: Sequence[Any], metric: str, halving: Halving | None, raises: bool
    ) -> None:
        self.trials, self.metric, self.halving, self.raises = trials, metric, halving, raises
        self.reporting = [
            None if trial is None else PruningListener(trial, metric) for trial in trials
        ]
        self.stopped: dict[int, Stopped] = {}
        self.last: TrainState
        self.step = 0

    # -- the listener ------------------------------------------------------------------------

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Store the length of the run, from which a pruner may predict the final value."""
        for trial in self.trials:
            if trial is not None and event.steps is not None:
                trial.set_user_attr(STEPS, event.steps)

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Report the metric of each member that is running, and note those to stop."""
        self.step = event.state.counters.step
        self._find_nonfinite(event.state)
        for member, listener in enumerate(self.reporting):
            metrics = {name: each[member] for name, each in event.metrics.items()}
            if listener is None or member in self.stopped or None in metrics.values():
                continue
            stop = listener.on_eval_end(attrs.evolve(event, metrics=metrics))
            if stop is not None:
                self.stopped[member] = Stopped("pruned", stop.detail, self.step)

    def on_member_stopped(self, event: events.MemberStopped) -> None:
        """Note a member that a rule of the run has stopped."""
        step = event.state.counters.step
        self.stopped.setdefault(event.member, Stopped("early_stop", event.detail, step))

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Note members whose steps were not finite, and keep the last state."""
        self._find_nonfinite(event.state)
        self.last = event.state

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {"stopped": {str(member): attrs.asdict(one) for member, one in self.stopped.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.stopped = {int(member): Stopped(**one) for member, one in state["stopped"].items()}

    def _find_nonfinite(self, state: TrainState) -> None:
        if not self.raises:
            return
        for member, count in enumerate(state.counters.skipped.tolist()):
            if count and member not in self.stopped:
                step = state.counters.step
                detail = f"{count} of {step} steps had a loss or gradients that are not finite"
                self.stopped[member] = Stopped("nonfinite", detail, step)

    # -- the rule ----------------------------------------------------------------------------

    def init(self) -> State:
        """Return the state before the first evaluation."""
        return {"stop": None, "halving": None if self.halving is None else self.halving.init()}

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """Refuse a run of one program."""
        raise ConfigurationError("expected the metrics of a population, got those of one program")

    def observe_members(
        self, state: State, metrics: Mapping[str, Any], running: Sequence[int]
    ) -> tuple[State, dict[int, str]]:
        """Return the state after an evaluation, and why members stop; see ``Halving``."""
        stops = {
            member: self.stopped[member].detail for member in running if member in self.stopped
        }
        rest = [member for member in running if member not in stops]
        if self.halving is None or find(metrics, self.metric) is None:
            return state, stops
        after, left = self.halving.observe_members(state["halving"], metrics, rest)
        values: Any = find(metrics, self.metric)
        for member, why in left.items():
            # A trial whose metric is not finite has failed, as alone.
            reason = "pruned" if math.isfinite(values[member]) else "early_stop"
            self.stopped[member] = Stopped(reason, why, self.step)
        return {**state, "halving": after}, {**stops, **left}
