"""Telling a study how a run goes, and ending the run when the study prunes it."""

from __future__ import annotations

import math
from typing import Any

from functrain.errors import SearchError
from functrain.errors.nearest import nearest
from functrain.listeners.event_text import evaluation_name
from functrain.training import events
from functrain.training.early_stopping.rule import find

STEPS = "steps"  # attribute of a trial: how long its runs are


class Pruning:
    """A listener that reports a metric at each evaluation and ends the run that is pruned.

    Only the pruner's decision is a pruning: what ends a run otherwise does not set ``detail``.

    Attributes:
        trial: an ``optuna.Trial``.
        metric: what is reported; as in ``EarlyStop``, ``"loss"`` stands for ``"eval/loss"``.
        reported: steps that the study knows already, from before an interruption.
        detail: why the run was pruned, or ``None``.
        given: whether an evaluation has given the metric.
    """

    def __init__(self, trial: Any, metric: str, reported: set[int]) -> None:
        self.trial = trial
        self.metric = metric
        self.reported = reported
        self.detail: str | None = None
        self.given = bool(reported)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Note how long the run will be; a pruner may want to predict its end."""
        if event.steps is not None:
            self.trial.set_user_attr(STEPS, event.steps)

    def on_eval_end(self, event: events.EvalEnd) -> events.Stop | None:
        """Report the metric if it is among these, and ask whether to go on.

        Raises:
            SearchError: it should be among these, and is not.
        """
        prefix = evaluation_name(event)
        value = find({f"{prefix}/{key}": v for key, v in event.metrics.items()}, self.metric)
        # NaN is a failure, which is not for the pruner to judge.
        if value is None:
            self._check_given(event, prefix)
            return None
        self.given = True
        if not math.isfinite(value):
            return None
        step = event.state.counters.step
        if step not in self.reported:
            self.trial.report(value, step)
            self.reported.add(step)
        if not self.trial.should_prune():
            return None
        self.detail = f"pruned at step {step} with {self.metric} {value:.4g}"
        return events.Stop(self.detail)

    def _check_given(self, event: events.EvalEnd, prefix: str) -> None:
        """Refuse a metric that is named as one of this evaluation, which does not give it.

        Raises:
            SearchError: it is, and no evaluation has given it before.
        """
        own = self.metric.startswith(f"{prefix}/")
        if (
            self.given
            or not own
            or self.metric.startswith(f"{event.name}/ema/") != (event.weights == "ema")
        ):
            return
        names = [f"{prefix}/{key}" for key in event.metrics]
        raise SearchError(
            f"metric: the runs do not measure {self.metric!r}{nearest(self.metric, names)}; this "
            f"evaluation gave {', '.join(names) or 'nothing'}"
        )
