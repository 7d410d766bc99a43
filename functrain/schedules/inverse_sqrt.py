"""A learning rate that falls with the square root of the step."""

from __future__ import annotations

import math

import attrs

from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, optional
from functrain.schedules.fields import plain_float

_TIMESCALE = 10_000  # the default of transformers without warmup


@explained
@attrs.frozen(repr=False)
class InverseSqrt(Schedule):
    """Linear warmup from 0 to `lr`, then a fall with the inverse square root of the step.

    Formula, with W the warmup and S the timescale: lr * step / W before W, then
    lr / sqrt((step - W + S) / S): the `get_inverse_sqrt_schedule` of transformers (after
    big_vision). With S = W, as by default, it is lr * sqrt(W / step): fairseq's `inverse_sqrt`
    from 0 on, and the schedule of Vaswani et al. (2017), where lr = 1 / sqrt(W * d_model).
    It has no end, and does not depend on the length of the run.

    Args:
        lr: the highest learning rate, at update number W.
        warmup_steps: W.
        timescale: S in steps; None is W, or 10 000 where W is 0.

    Example:
        >>> schedule = InverseSqrt(1.0, warmup_steps=4)
        >>> [schedule(step) for step in (0, 2, 4, 16, 64)]
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    warmup_steps: int = attrs.field(kw_only=True, validator=integer(minimum=0))
    timescale: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr on the way up or on the way down."""
        warmup = self.warmup_steps
        if step < warmup:
            return self.base * step / warmup
        scale = (warmup or _TIMESCALE) if self.timescale is None else self.timescale
        return self.base / math.sqrt((step - warmup + scale) / scale)
