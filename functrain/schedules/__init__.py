"""Learning rate schedules: pure functions of the step and of a small plain state.

A schedule is a frozen value. A step asks it for ``lr(state, step)`` and passes the number on to the
optimizer. A schedule's memory, such as the length of the run, is in ``state``, which checkpoints
hold. ``decay.py`` is the one to read first.
"""

from typing import TYPE_CHECKING, NoReturn

from functrain.core.schedule import Constant, Lambda, Observed, Schedule, ScheduleState, as_schedule
from functrain.errors.nearest import unknown_attribute
from functrain.errors.other_libraries import IN_SCHEDULES
from functrain.schedules.cyclic import CosineRestarts, Cyclic, OneCycle
from functrain.schedules.decay import Cosine, Exponential, InverseSqrt, Linear, Polynomial
from functrain.schedules.hyperbolic import ExpHyperbolic, Hyperbolic
from functrain.schedules.piecewise import MultiStep, Piecewise, Step
from functrain.schedules.plateau import Plateau
from functrain.schedules.scaled import Scaled
from functrain.schedules.sequential import Joined, Sequential
from functrain.schedules.spike import Spike
from functrain.schedules.torch_schedule import TorchSchedule, from_torch
from functrain.schedules.warmup import ExponentialWarmup, Warmup
from functrain.schedules.warmup_decay import WarmupCosine, WarmupLinear, WarmupStableDecay

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "ExpHyperbolic",
    "Exponential",
    "ExponentialWarmup",
    "Hyperbolic",
    "InverseSqrt",
    "Joined",
    "Lambda",
    "Linear",
    "MultiStep",
    "Observed",
    "OneCycle",
    "Piecewise",
    "Plateau",
    "Polynomial",
    "Scaled",
    "Schedule",
    "ScheduleState",
    "Sequential",
    "Spike",
    "Step",
    "TorchSchedule",
    "Warmup",
    "WarmupCosine",
    "WarmupLinear",
    "WarmupStableDecay",
    "as_schedule",
    "from_torch",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the module

    def __getattr__(name: str) -> NoReturn:
        raise unknown_attribute("module 'functrain.schedules'", name, __all__, IN_SCHEDULES)
