"""Mistakes that users make, each with the error that it should raise."""

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

MISTAKES: list[Mistake] = [
    *programs.MISTAKES,
    *transformations.MISTAKES,
    *optimizers.MISTAKES,
    *schedules.MISTAKES,
    *data.MISTAKES,
    *distributed.MISTAKES,
    *runs.MISTAKES,
    *checkpoints.MISTAKES,
    *saving.MISTAKES,
    *configurations.MISTAKES,
    *around.MISTAKES,
]

__all__ = ["MISTAKES", "Mistake"]
