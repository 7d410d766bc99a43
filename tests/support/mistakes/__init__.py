"""Mistakes that users make, each with the error that it should raise and what its message says."""

from mistakes import (
    around,
    checkpoints,
    configurations,
    data,
    distributed,
    optimizers,
    programs,
    runs,
    saving,
    schedules,
    transformations,
)
from mistakes.mistake import Mistake

_BEFORE_RUNS = (programs, transformations, optimizers, schedules, data, distributed)
MISTAKES = [
    Mistake(error, *case)
    for module in (*_BEFORE_RUNS, runs, checkpoints, saving, configurations, around)
    for error, cases in module.MISTAKES.items()
    for case in cases
]

__all__ = ["MISTAKES", "Mistake"]
