"""A climb, a long plain, and a short way down at the end of the run."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import attrs

from functrain.core.schedule import ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, one_of, optional
from functrain.schedules.fields import exactly_one, plain_float
from functrain.schedules.total_steps import check_total_steps
from functrain.schedules.warmup_decay import WarmupDecay, length_of

_Shape: TypeAlias = Literal["linear", "cosine", "sqrt"]


@explained
@attrs.frozen(repr=False)
class WarmupStableDecay(WarmupDecay):
    """Linear warmup from 0 to `lr`, `lr` for most of the run, then a decay to `end`.

    The schedule of MiniCPM (Hu et al., 2024), also called trapezoidal. Formula, with W the
    warmup, D the decay and T the horizon: lr * step / W before W, then lr until T - D, then
    end + (lr - end) * f(p) with p = (step - (T - D)) / D, then `end`. f is 1 - p for "linear",
    (1 + cos(pi * p)) / 2 for "cosine", and 1 - sqrt(p) for "sqrt", which Hägele et al. (2024)
    found best. It is `get_wsd_schedule` of transformers, whose decay types are linear, cosine
    and 1-sqrt, and whose stable steps are T - D - W.

    Args:
        lr: the learning rate of the plain.
        warmup_steps: W, the length of the climb; or
        warmup_proportion: W as a part of the horizon, rounded to the nearest step.
        decay_steps: D, the length of the fall; or
        decay_proportion: D as a part of the horizon, rounded to the nearest step.
        shape: "linear", "cosine" or "sqrt".
        end: the learning rate from update number T on.
        steps: T; None is the length of the run.

    Example:
        >>> schedule = WarmupStableDecay(1.0, warmup_steps=2, decay_proportion=0.5, steps=8)
        >>> [schedule(step) for step in range(9)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    decay_steps: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=0))
    )
    decay_proportion: float | None = attrs.field(
        default=None,
        kw_only=True,
        converter=attrs.converters.optional(plain_float),
        validator=[
            optional(number(minimum=0, maximum=1)),
            exactly_one("decay_steps", "decay_proportion"),
        ],
    )
    shape: _Shape = attrs.field(default="linear", kw_only=True, validator=one_of(_Shape))

    def init(self) -> ScheduleState:
        """Return {"horizon": T, "warmup": W, "decay": D}, None for what the run decides."""
        state = {"horizon": None, "warmup": self.warmup_steps, "decay": self.decay_steps}
        return state if self.steps is None else self._filled(state, self.steps)

    def curve(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the plain, or on the way down."""
        decay: int = state["decay"]
        down = step - state["horizon"] + decay
        if down < 0:
            return self.base
        return self.end + (self.base - self.end) * self._left(down / decay)

    def _filled(self, state: ScheduleState, horizon: int) -> ScheduleState:
        check_total_steps(self, horizon)
        warmup = length_of(state["warmup"], self.warmup_proportion, horizon)
        decay = length_of(state["decay"], self.decay_proportion, horizon)
        if warmup + decay > horizon:
            raise ConfigurationError(
                f"WarmupStableDecay: a warmup of {warmup} and a decay of {decay} steps do not fit "
                f"into a horizon of {horizon} steps: lengthen the run (or steps=), or shorten one"
            )
        return {"horizon": horizon, "warmup": warmup, "decay": decay}

    def _left(self, progress: float) -> float:
        if self.shape == "linear":
            return 1 - progress
        if self.shape == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        return 1 - math.sqrt(progress)
