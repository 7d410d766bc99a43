"""A mistake for each error and warning, with one fact that its message says.

A mistake is (class, what makes it, fact), and ``SLOW`` where it starts processes. What makes it
may take an empty directory, and the ``monkeypatch`` that undoes its patches.
"""

from mistakes import (
    around,
    checkpoints,
    configurations,
    data,
    distributed,
    programs,
    runs,
    saving,
    schedules,
    transformations,
)

_BEFORE_RUNS = (programs, transformations, schedules, data, distributed)
_MODULES = (*_BEFORE_RUNS, runs, checkpoints, saving, configurations, around)
MISTAKES = [mistake for module in _MODULES for mistake in module.MISTAKES]

__all__ = ["MISTAKES"]
