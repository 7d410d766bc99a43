"""functrain: training as a value.

    program = ft.program(model, loss, ft.optim.AdamW(lr=3e-4), clip_norm=1.0, ema=0.999)
    state = program.init(seed=0)
    state, metrics = program.train_step(state, batch)

A program is three pure functions made from a module, a loss and an optimizer; a state is
everything that changes, as one immutable tree. Read ``core/program.py`` for the step,
``training/loop.py`` for the loop of ``fit``, ``checkpoint/`` for how a run is saved.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functrain import checkpoint as checkpoint
    from functrain import config as config
    from functrain import data, finders, generation, listeners, metrics, optim, schedules, tree
    from functrain import errors as errors
    from functrain import search as search
    from functrain import testing as testing
    from functrain.checkpoint import Checkpoints, load, save
    from functrain.checkpoint.run_state import RunState
    from functrain.core.batch_splitting import MicroBatches
    from functrain.core.ema import EMA, SWA
    from functrain.core.loss import Loss
    from functrain.core.program import Program
    from functrain.core.state import TrainState
    from functrain.distributed.placement import Placement
    from functrain.distributed.sharded import sharded
    from functrain.own_steps.custom import custom
    from functrain.own_steps.joint import joint
    from functrain.populations.construct import population
    from functrain.testing.bisect import bisect
    from functrain.testing.checked import checked
    from functrain.training import durations as durations
    from functrain.training import events as events
    from functrain.training import history as history
    from functrain.training.batch_norm import update_bn
    from functrain.training.durations import Epochs, Minutes, Samples, Steps
    from functrain.training.early_stopping import EarlyStop, Overfit, PredictedStop
    from functrain.training.evaluation import Evaluation, evaluate
    from functrain.training.events import Stop
    from functrain.training.fitting import fit
    from functrain.training.forking import fork
    from functrain.training.history import History, Run
    from functrain.training.iteration import iterate
    from functrain.training.phases import phases
    from functrain.training.predict import predict
    from functrain.training.pretrained import program
    from functrain.transforms.compiled import compiled
    from functrain.transforms.donated import donated
    from functrain.transforms.sharpness_aware import sharpness_aware
    from functrain.transforms.steps import steps
    from functrain.transforms.unrolling.program import differentiable
    from functrain.transforms.unrolling.unrolled import unrolled
    from functrain.tree.nodes import copy

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "SWA",
    "Checkpoints",
    "EarlyStop",
    "Epochs",
    "Evaluation",
    "History",
    "Loss",
    "MicroBatches",
    "Minutes",
    "Overfit",
    "Placement",
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
    "custom",
    "data",
    "differentiable",
    "donated",
    "evaluate",
    "finders",
    "fit",
    "fork",
    "generation",
    "iterate",
    "joint",
    "listeners",
    "load",
    "metrics",
    "optim",
    "phases",
    "population",
    "predict",
    "program",
    "save",
    "schedules",
    "sharded",
    "sharpness_aware",
    "steps",
    "tree",
    "unrolled",
    "update_bn",
]

# Nothing is imported before it is used: a step function needs neither the loop nor checkpoints.
_DEFINED_IN = {
    "Checkpoints": "functrain.checkpoint",
    "EMA": "functrain.core.ema",
    "SWA": "functrain.core.ema",
    "EarlyStop": "functrain.training.early_stopping",
    "Epochs": "functrain.training.durations",
    "Evaluation": "functrain.training.evaluation",
    "History": "functrain.training.history",
    "Loss": "functrain.core.loss",
    "MicroBatches": "functrain.core.batch_splitting",
    "Minutes": "functrain.training.durations",
    "Overfit": "functrain.training.early_stopping",
    "PredictedStop": "functrain.training.early_stopping",
    "Program": "functrain.core.program",
    "Run": "functrain.training.history",
    "RunState": "functrain.checkpoint.run_state",
    "Samples": "functrain.training.durations",
    "Steps": "functrain.training.durations",
    "Stop": "functrain.training.events",
    "TrainState": "functrain.core.state",
    "bisect": "functrain.testing.bisect",
    "checked": "functrain.testing.checked",
    "compiled": "functrain.transforms.compiled",
    "copy": "functrain.tree.nodes",
    "custom": "functrain.own_steps.custom",
    "differentiable": "functrain.transforms.unrolling.program",
    "donated": "functrain.transforms.donated",
    "sharded": "functrain.distributed.sharded",
    "Placement": "functrain.distributed.placement",
    "evaluate": "functrain.training.evaluation",
    "fit": "functrain.training.fitting",
    "fork": "functrain.training.forking",
    "iterate": "functrain.training.iteration",
    "joint": "functrain.own_steps.joint",
    "load": "functrain.checkpoint",
    "phases": "functrain.training.phases",
    "population": "functrain.populations.construct",
    "predict": "functrain.training.predict",
    "program": "functrain.training.pretrained",
    "save": "functrain.checkpoint",
    "sharpness_aware": "functrain.transforms.sharpness_aware",
    "steps": "functrain.transforms.steps",
    "unrolled": "functrain.transforms.unrolling.unrolled",
    "update_bn": "functrain.training.batch_norm",
}
_ROOMS = {
    *("checkpoint", "cli", "config", "core", "data", "distributed", "errors", "examples"),
    *("finders", "generation", "listeners", "metrics", "optim", "plotting"),
    *("own_steps", "populations", "schedules", "search"),
    *("testing", "training", "transforms", "tree", "view"),
}
# Listeners are written against `ft.events`; these three lie in the room of the loop.
_IN_TRAINING = {"durations", "events", "history"}

if "IPython" in sys.modules:  # a notebook shows values as HTML
    import_module("functrain.view.notebook").register()


def __getattr__(name: str) -> Any:
    if name in _DEFINED_IN:
        value = getattr(import_module(_DEFINED_IN[name]), name)
    elif name in _ROOMS:
        value = import_module(f"functrain.{name}")
    elif name in _IN_TRAINING:
        value = import_module(f"functrain.training.{name}")
    else:
        raise AttributeError(_NoAttribute(name))
    globals()[name] = value  # found without this function from now on
    return value


class _NoAttribute:
    """A message that looks for near names when it is shown.

    That imports rooms, and ``pickle``, with which torch hashes a graph, asks modules for any name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        from functrain.errors.nearest import unknown_attribute
        from functrain.errors.other_libraries import IN_PACKAGE

        in_rooms = {
            inner: f"functrain.{room}.{inner}"
            for room in ("data", "metrics", "schedules", "listeners", "optim")
            for inner in import_module(f"functrain.{room}").__all__
        }
        names, elsewhere = (*__all__, *_ROOMS), {**in_rooms, **IN_PACKAGE}
        return str(unknown_attribute("module 'functrain'", self.name, names, elsewhere))


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
