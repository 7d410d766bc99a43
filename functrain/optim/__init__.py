"""Optimizers: frozen hyperparameters, pure rules, and in-place kernels of the same mathematics.

Begin with ``leafwise.py`` and ``methods/sgd.py``. ``wrappers`` change another optimizer, and
``groups.py`` assigns optimizers to parameters.
"""

from typing import TYPE_CHECKING, NoReturn

from functrain.core.optimizer import Optimizer, OptimizerState
from functrain.errors.nearest import unknown_attribute
from functrain.errors.other_libraries import IN_OPTIM
from functrain.optim.common_groups import (
    is_bias_or_norm,
    layerwise_lr_decay,
    no_decay_on_bias_and_norm,
)
from functrain.optim.from_torch import FromTorch, from_torch
from functrain.optim.groups import Frozen, Groups, groups
from functrain.optim.methods.adadelta import Adadelta
from functrain.optim.methods.adafactor import Adafactor
from functrain.optim.methods.adagrad import Adagrad
from functrain.optim.methods.adam import Adam, AdamW
from functrain.optim.methods.adamax import Adamax
from functrain.optim.methods.lamb import LAMB
from functrain.optim.methods.lion import Lion
from functrain.optim.methods.muon import Muon, is_matrix
from functrain.optim.methods.nadam import NAdam
from functrain.optim.methods.radam import RAdam
from functrain.optim.methods.rmsprop import RMSprop
from functrain.optim.methods.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from functrain.optim.methods.sgd import SGD
from functrain.optim.torch_moments import load_torch_state
from functrain.optim.wrappers import (
    AdaptiveGradClip,
    ClipByBlockRms,
    Float32State,
    Lookahead,
)

__all__ = [
    "LAMB",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "AdaptiveGradClip",
    "ClipByBlockRms",
    "Float32State",
    "FromTorch",
    "Frozen",
    "Groups",
    "Lion",
    "Lookahead",
    "Muon",
    "NAdam",
    "Optimizer",
    "OptimizerState",
    "RAdam",
    "RMSprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "from_torch",
    "groups",
    "is_bias_or_norm",
    "is_matrix",
    "layerwise_lr_decay",
    "load_torch_state",
    "no_decay_on_bias_and_norm",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the module

    def __getattr__(name: str) -> NoReturn:
        raise unknown_attribute("module 'functrain.optim'", name, __all__, IN_OPTIM)
