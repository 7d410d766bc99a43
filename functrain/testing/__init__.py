"""Laws of a training run as checks that anyone can call on their own code.

A check returns, or raises an ``AssertionError`` that names what it found; no test framework is
needed. ``functrain.testing.strategies`` has Hypothesis strategies to call them on many cases.
``bisect`` finds the first step at which two runs differ. Begin with ``purity.py``.
"""

from functrain.errors import ImpurityError, IncompleteError, ResumptionError
from functrain.testing.completeness import check_complete
from functrain.testing.interruptions import Cut
from functrain.testing.listeners import check_listener
from functrain.testing.losses import check_loss
from functrain.testing.optimizers import check_optimizer
from functrain.testing.purity import check_pure
from functrain.testing.resumption import check_resumes
from functrain.testing.schedules import check_schedule

__all__ = [
    "Cut",
    "ImpurityError",
    "IncompleteError",
    "ResumptionError",
    "check_complete",
    "check_listener",
    "check_loss",
    "check_optimizer",
    "check_pure",
    "check_resumes",
    "check_schedule",
]
