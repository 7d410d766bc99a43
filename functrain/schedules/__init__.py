"""Learning rate schedules: pure functions of the step, and of a small plain state.

A schedule is a frozen value. The host asks it for `lr(state, step)` before each update and
passes the number on to the optimizer; what the schedule has to remember, its horizon included,
is in `state`, which a checkpoint holds.
"""

from functrain.schedules.coerce import as_schedule
from functrain.schedules.constant import Constant, Lambda
from functrain.schedules.cosine import Cosine
from functrain.schedules.from_torch import TorchSchedule, from_torch
from functrain.schedules.linear import Linear
from functrain.schedules.plateau import Plateau
from functrain.schedules.protocol import Schedule, ScheduleState
from functrain.schedules.sequential import Sequential
from functrain.schedules.warmup import Warmup
from functrain.schedules.warmup_decay import WarmupCosine, WarmupLinear

__all__ = [
    "Constant",
    "Cosine",
    "Lambda",
    "Linear",
    "Plateau",
    "Schedule",
    "ScheduleState",
    "Sequential",
    "TorchSchedule",
    "Warmup",
    "WarmupCosine",
    "WarmupLinear",
    "as_schedule",
    "from_torch",
]
