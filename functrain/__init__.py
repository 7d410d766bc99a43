"""functrain: training as a value.

    program = ft.program(model, loss, ft.optim.AdamW(lr=3e-4), clip_norm=1.0, ema=0.999)
    state = program.init(seed=0)
    state, metrics = program.train_step(state, batch)

A program is three pure functions made from a module, a loss and an optimizer; a state is
everything that changes, as one immutable tree. Read ``program.py`` for the step, ``loop.py`` for
``fit``, ``checkpoint/`` for how a run is persisted.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from functrain import data, metrics, optim, schedules, tree
from functrain.checkpoint.run_state import Run, RunState
from functrain.core.batch import MicroBatches
from functrain.core.constructor import program
from functrain.core.ema import EMA
from functrain.core.loss import Loss
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.training.durations import Epochs, Minutes, Samples, Steps
from functrain.training.early_stopping import EarlyStop
from functrain.training.evaluation import Evaluation, evaluate
from functrain.training.events import Stop
from functrain.training.forking import fork
from functrain.training.overfitting import Overfit
from functrain.training.predicted_stop import PredictedStop
from functrain.transforms import compiled, donated, sharpness_aware
from functrain.tree.copying import copy

if TYPE_CHECKING:
    from functrain import finders, generation, listeners
    from functrain.checkpoint import Checkpoints, load, save
    from functrain.testing.bisect import bisect
    from functrain.training.history import History
    from functrain.training.loop import fit, iterate
    from functrain.transforms.checked import checked

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "Checkpoints",
    "EarlyStop",
    "Epochs",
    "Evaluation",
    "History",
    "Loss",
    "MicroBatches",
    "Minutes",
    "Overfit",
    "PredictedStop",
    "Program",
    "Run",
    "RunState",
    "Samples",
    "Steps",
    "Stop",
    "TrainState",
    "bisect",
    "checked",
    "compiled",
    "copy",
    "data",
    "donated",
    "evaluate",
    "finders",
    "fit",
    "fork",
    "generation",
    "iterate",
    "listeners",
    "load",
    "metrics",
    "optim",
    "program",
    "save",
    "schedules",
    "sharpness_aware",
    "tree",
]

# Loop and store are half of the import time, and a step function needs neither.
_ON_FIRST_USE = {
    "Checkpoints": "functrain.checkpoint",
    "load": "functrain.checkpoint",
    "save": "functrain.checkpoint",
    "checked": "functrain.transforms.checked",
    "History": "functrain.training.history",
    "bisect": "functrain.testing.bisect",
    "fit": "functrain.training.loop",
    "iterate": "functrain.training.loop",
}
_MODULES = ("finders", "generation", "listeners")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"functrain.{name}")
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'functrain' has no attribute {name!r}")
    return getattr(import_module(_ON_FIRST_USE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE, *_MODULES})
