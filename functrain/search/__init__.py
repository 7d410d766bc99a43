"""Search for hyperparameters on Optuna: resumable, pruned at evaluations, over several seeds.

Begin with ``loop.py``.
"""

from functrain.search.loop import Search, search
from functrain.search.objective import ProgramObjective
from functrain.search.pruning import PredictedLossPruner
from functrain.search.space import Choices, Range, read_space

__all__ = [
    "Choices",
    "PredictedLossPruner",
    "ProgramObjective",
    "Range",
    "Search",
    "read_space",
    "search",
]
