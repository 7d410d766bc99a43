"""Report metrics to a study, and stop a run that the study prunes."""

from __future__ import annotations

import math
from typing import Any

from functrain.errors import SearchError
from functrain.errors.nearest import nearest
from functrain.training import events
from functrain.training.early_stopping.rule import find
from functrain.training.progress.event_text import evaluation_name

STEPS = "steps"  # the attribute of a trial with the length of its runs


class PruningListener:
    """A listener that reports a metric at each evaluation and stops a pruned run.

    Attributes:
        trial: an ``optuna.Trial``.
        metric: the metric; as in ``EarlyStop``, ``"loss"`` stands for ``"eval/loss"``.
        reported: steps whose values are in the study, also from before an interruption.
        detail: the reason for pruning; ``None`` unless the pruner stopped the run.
        given: whether an evaluation has had the metric.
    """

    def __init__(self, trial: Any, metric: str) -> None:
        self.trial, self.metric = trial, metric
        stored = trial.study.get_trials(deepcopy=False)[trial.number]
        self.reported: set[int] = set(stored.intermediate_values)
        self.detail: str | None = None
        self.given = bool(self.reported)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Store the length of the run, from which a pruner may predict the final value."""
        if event.steps is not None:
            self.trial.set_user_attr(STEPS, event.steps)

    def on_eval_end(self, event: events.EvalEnd) -> events.Stop | None:
        """Report the metric if the evaluation has it, and stop if the trial is pruned.

        Raises:
            SearchError: the evaluation should have the metric, but does not.
        """
        prefix = evaluation_name(event)
        value = find({f"{prefix}/{key}": v for key, v in event.metrics.items()}, self.metric)
        # NaN fails the trial, so it is not reported to the pruner.
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
        """Check that no evaluation lacks the metric that its name belongs to.

        Raises:
            SearchError: this is such an evaluation, and no earlier one had the metric.
        """
        of_ema = self.metric.startswith(f"{event.name}/ema/")
        own = self.metric.startswith(f"{prefix}/") and of_ema == (event.weights == "ema")
        if self.given or not own:
            return
        names = [f"{prefix}/{key}" for key in event.metrics]
        raise SearchError(
            f"metric: the runs do not measure {self.metric!r}{nearest(self.metric, names)}; this "
            f"evaluation has {', '.join(names) or 'nothing'}"
        )
