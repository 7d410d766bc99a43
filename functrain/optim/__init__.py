"""Optimizers: frozen hyperparameters, pure rules, and in-place kernels of the same mathematics."""

from functrain.optim.adafactor import Adafactor
from functrain.optim.adam import Adam, AdamW
from functrain.optim.from_torch import FromTorch, from_torch
from functrain.optim.frozen import Frozen
from functrain.optim.groups import Groups, groups
from functrain.optim.lamb import LAMB
from functrain.optim.lion import Lion
from functrain.optim.muon import Muon, is_matrix
from functrain.optim.protocol import Optimizer, OptimizerState
from functrain.optim.radam import RAdam
from functrain.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from functrain.optim.sgd import SGD

__all__ = [
    "LAMB",
    "SGD",
    "Adafactor",
    "Adam",
    "AdamW",
    "FromTorch",
    "Frozen",
    "Groups",
    "Lion",
    "Muon",
    "Optimizer",
    "OptimizerState",
    "RAdam",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "from_torch",
    "groups",
    "is_matrix",
]
