"""The results of a study as plain values, and as plots by Optuna."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import attrs

from functrain.errors.optional import require

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
UNFINISHED = "unfinished"
_PLOTS = {
    "history.png": "plot_optimization_history",
    "slices.png": "plot_slice",
    "parallel.png": "plot_parallel_coordinate",
}


@attrs.frozen
class Row:
    """A trial.

    Attributes:
        state: ``complete``, ``pruned``, ``failed`` or ``unfinished``.
        value: the mean over the seeds; for a pruned trial the last reported value.
        std: the standard deviation over several seeds.
    """

    number: int
    state: str
    value: float | None
    std: float | None
    params: dict[str, Any]
    seconds: float
    detail: str


def rows(study: Any) -> list[Row]:
    """Return all trials of a study in the order of their numbers."""
    return [
        Row(
            number=trial.number,
            state=STATES.get(trial.state.name, UNFINISHED),
            value=trial.value,
            std=trial.user_attrs.get("std"),
            params=dict(trial.params),
            seconds=trial.user_attrs.get("seconds", 0.0),
            detail=trial.user_attrs.get("detail", ""),
        )
        for trial in study.get_trials(deepcopy=False)
    ]


def ranked(study: Any) -> list[Row]:
    """Return the complete trials, best first."""
    complete = [row for row in rows(study) if row.state == "complete" and row.value is not None]
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return sorted(complete, key=lambda row: sign * (row.value or 0.0))


def counts(study: Any) -> dict[str, int]:
    """Count the trials in each state."""
    found = Counter(row.state for row in rows(study))
    return {state: found[state] for state in (*STATES.values(), UNFINISHED) if found[state]}


def importances(study: Any) -> dict[str, float]:
    """Return the importance of each parameter for the difference between good and bad trials.

    The fractions sum to 1, the largest first. There are none with fewer than four complete trials,
    or if all values are equal. PED-ANOVA (Watanabe, Bansal and Hutter, 2023) is the only evaluator
    of Optuna that needs no further package.
    """
    values = [row.value for row in ranked(study)]
    if len(values) < 4 or len(set(values)) == 1:
        return {}
    importance = require("optuna.importance", "search")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*xperimental.*")
        evaluator = importance.PedAnovaImportanceEvaluator()
        found = importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def draw(study: Any, directory: Path, metric: str) -> list[Path]:
    """Write Optuna's plots of a study, none while no trial is complete, and return their files."""
    if not ranked(study):
        return []
    pyplot = require("matplotlib.pyplot", "plot")
    optuna = require("optuna.visualization.matplotlib", "search")
    for name, plot in _PLOTS.items():
        # Optuna draws through pyplot and in a style of its own; both stay as they were.
        with warnings.catch_warnings(), pyplot.ioff(), pyplot.style.context("default"):
            warnings.filterwarnings("ignore", message=".*xperimental.*|.*identical low and high")
            getattr(optuna, plot)(study, target_name=metric)
            try:
                pyplot.savefig(directory / name, dpi=130, bbox_inches="tight")
            finally:
                pyplot.close()
    return [directory / name for name in _PLOTS]
