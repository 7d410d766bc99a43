"""Report metrics to a study, which may prune the run; and a pruner by predicted final values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from functrain.core.schedule import Mode
from functrain.errors import SearchError
from functrain.errors.nearest import nearest
from functrain.errors.validators import number
from functrain.training import events
from functrain.training.early_stopping.prediction import LEAST_POINTS, predict_final
from functrain.training.early_stopping.rule import find, worse
from functrain.training.progress.output import evaluation_name

STEPS = "steps"  # the attribute of a trial with the length of its runs


class PruningListener:
    """A listener that reports a metric at each evaluation and stops a pruned run.

    Attributes:
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
        """Report the metric if the evaluation has it, and stop if the trial is pruned."""
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
        """Check that no evaluation lacks the metric that its name belongs to."""
        of_ema = self.metric.startswith(f"{event.name}/ema/")
        own = self.metric.startswith(f"{prefix}/") and of_ema == (event.weights == "ema")
        if self.given or not own:
            return
        names = [f"{prefix}/{key}" for key in event.metrics]
        raise SearchError(
            f"metric: the runs do not measure {self.metric!r}{nearest(self.metric, names)}; this "
            f"evaluation has {', '.join(names) or 'nothing'}"
        )


@attrs.frozen(kw_only=True)
class PredictedLossPruner:
    """Prunes a trial that is predicted to end worse than the best trials.

    This is an Optuna pruner for ``search`` or ``optuna.create_study``. It has no state: it decides
    from the values in the study, so it needs nothing to resume.

    Attributes:
        top: the number of best trials; the worst value among them is the bound.
        patience: the number of bad predictions in a row that prune a trial.
        warmup: the number of evaluations before the first prediction, at least four.
        margin: a prediction must be worse than the bound by more than this.
        at: the step to predict; by default the last step of the run, which ``search`` stores.
    """

    top: int = attrs.field(default=3, validator=number(minimum=1, finite=False))
    patience: int = attrs.field(default=2, validator=number(minimum=1, finite=False))
    warmup: int = attrs.field(
        default=LEAST_POINTS, validator=number(minimum=LEAST_POINTS, finite=False)
    )
    margin: float = attrs.field(default=0.0, validator=number(minimum=0, finite=False))
    at: int | None = None

    def prune(self, study: Any, trial: Any) -> bool:
        """Return whether to prune a trial now.

        Args:
            study: an ``optuna.Study`` with one objective.
            trial: an ``optuna.trial.FrozenTrial``.
        """
        at = trial.user_attrs.get(STEPS) if self.at is None else self.at
        bound = self._bound(study)
        if at is None or bound is None:
            return False
        mode: Mode = "min" if study.direction.name == "MINIMIZE" else "max"
        bound += self.margin if mode == "min" else -self.margin
        points = sorted(trial.intermediate_values.items())
        if len(points) < self.warmup + self.patience - 1:
            return False
        lengths = range(len(points) - self.patience + 1, len(points) + 1)
        return all(_is_worse(points[:length], at, bound, mode) for length in lengths)

    def _bound(self, study: Any) -> float | None:
        """Return the worst value of the best trials; ``None`` while there are too few."""
        trials = study.get_trials(deepcopy=False)
        values = sorted(t.value for t in trials if t.state.name == "COMPLETE")
        if len(values) < self.top:
            return None
        rank = self.top - 1 if study.direction.name == "MINIMIZE" else -self.top
        return float(values[rank])


def _is_worse(points: Sequence[tuple[int, float]], at: int, bound: float, mode: Mode) -> bool:
    steps, values = zip(*points, strict=True)
    found = predict_final(steps, values, at)
    return found is not None and worse(found.value, bound, mode)
