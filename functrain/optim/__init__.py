"""Optimizers: frozen hyperparameters, pure rules, and in-place kernels of the same mathematics."""

from functrain.optim.adam import Adam, AdamW
from functrain.optim.from_torch import FromTorch, from_torch
from functrain.optim.frozen import Frozen
from functrain.optim.groups import Groups, groups
from functrain.optim.protocol import Optimizer, OptimizerState
from functrain.optim.radam import RAdam
from functrain.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "FromTorch",
    "Frozen",
    "Groups",
    "Optimizer",
    "OptimizerState",
    "RAdam",
    "from_torch",
    "groups",
]
