"""Prune trials by their predicted final value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from functrain.core.schedule import Mode
from functrain.errors.validators import number
from functrain.search.pruning_listener import STEPS
from functrain.training.early_stopping.prediction import LEAST_POINTS, predict_final
from functrain.training.early_stopping.rule import worse


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
