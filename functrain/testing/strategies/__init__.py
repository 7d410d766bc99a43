"""Hypothesis strategies for the parts of training: states, models, recipes, cuts.

Examples are small, print as code where possible, and shrink to fewer blocks, default options and
zeros. Needs Hypothesis: ``pip install 'functrain[testing]'``.
"""

from functrain.errors.optional import require

require("hypothesis", "testing")

from functrain.testing.strategies.events import events  # noqa: E402  (after the question for it)
from functrain.testing.strategies.models import (  # noqa: E402
    Architecture,
    Case,
    architectures,
    batches,
    cases,
)
from functrain.testing.strategies.recipes import (  # noqa: E402
    optimizers,
    recipes,
    schedules,
)
from functrain.testing.strategies.runs import cuts, durations  # noqa: E402
from functrain.testing.strategies.trees import scalars, tensors, trees  # noqa: E402

__all__ = [
    "Architecture",
    "Case",
    "architectures",
    "batches",
    "cases",
    "cuts",
    "durations",
    "events",
    "optimizers",
    "recipes",
    "scalars",
    "schedules",
    "tensors",
    "trees",
]
