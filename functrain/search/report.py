"""What a study has found, as plain values."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import attrs

from functrain.errors.optional import require

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
UNFINISHED = "unfinished"


@attrs.frozen
class Row:
    """A trial.

    Attributes:
        number: from 0.
        state: ``complete``, ``pruned``, ``failed`` or ``unfinished``.
        value: mean over the seeds; of a pruned trial the last that was reported.
        std: over the seeds, where there are several.
        params: by dotted name.
        seconds: time trained.
        detail: why it ended.
    """

    number: int
    state: str
    value: float | None
    std: float | None
    params: dict[str, Any]
    seconds: float
    detail: str


def rows(study: Any) -> list[Row]:
    """All trials of a study, in order of their numbers."""
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
    """The complete trials, the best first."""
    complete = [row for row in rows(study) if row.state == "complete" and row.value is not None]
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return sorted(complete, key=lambda row: sign * (row.value or 0.0))


def counts(study: Any) -> dict[str, int]:
    """How many trials there are of each state."""
    found = Counter(row.state for row in rows(study))
    return {state: found[state] for state in (*STATES.values(), UNFINISHED) if found[state]}


def importances(study: Any) -> dict[str, float]:
    """How much of the difference between good and bad trials each parameter explains.

    By PED-ANOVA (Watanabe, Bansal and Hutter, 2023), the one of Optuna's ways that needs no
    further package.

    Returns:
        Shares that sum to 1, the greatest first; nothing while fewer than four trials are complete
        or all are equal.
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
