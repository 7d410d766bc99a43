"""The loop: ``fit`` and ``iterate``, events, evaluation, early stopping, resuming, history.

Begin with ``loop.py``. The loop calls ``program.train_step`` and decides when to evaluate, save and
stop; everything that a resumed run needs is in the state and in the checkpoint.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functrain.training.durations import Epochs, Minutes, Samples, Steps
    from functrain.training.early_stopping import EarlyStop, Halving, Overfit, PredictedStop
    from functrain.training.evaluation import Evaluation, evaluate
    from functrain.training.events import Stop
    from functrain.training.fitting import fit
    from functrain.training.forking import fork
    from functrain.training.history import History, Run
    from functrain.training.iteration import iterate

__all__ = [
    "EarlyStop",
    "Epochs",
    "Evaluation",
    "Halving",
    "History",
    "Minutes",
    "Overfit",
    "PredictedStop",
    "Run",
    "Samples",
    "Steps",
    "Stop",
    "evaluate",
    "fit",
    "fork",
    "iterate",
]

# Imported on first use: a duration needs neither the loop nor checkpoints.
_DEFINED_IN = {
    **dict.fromkeys(("Epochs", "Minutes", "Samples", "Steps"), "durations"),
    **dict.fromkeys(("EarlyStop", "Halving", "Overfit", "PredictedStop"), "early_stopping"),
    **dict.fromkeys(("Evaluation", "evaluate"), "evaluation"),
    **dict.fromkeys(("History", "Run"), "history"),
    "Stop": "events",
    "fit": "fitting",
    "fork": "forking",
    "iterate": "iteration",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'functrain.training' has no attribute {name!r}")
    return getattr(import_module(f"functrain.training.{_DEFINED_IN[name]}"), name)
