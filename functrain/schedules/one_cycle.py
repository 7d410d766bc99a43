"""One rise and one long fall of the learning rate: the 1cycle policy."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import attrs

from functrain.core.schedule import ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, one_of, optional
from functrain.schedules.fields import plain_float
from functrain.schedules.total_steps import WithTotalSteps, known_total_steps

_Shape: TypeAlias = Literal["cosine", "linear"]


def _check_phases(instance: OneCycle, attribute: attrs.Attribute[Any], three: bool) -> None:
    if three and instance.warmup_proportion > 0.5:
        raise ConfigurationError(
            "OneCycle: with three_phase=True the way down is as long as the way up, so "
            f"warmup_proportion: expected a number up to 0.5, got {instance.warmup_proportion!r}"
        )


@explained
@attrs.frozen(repr=False)
class OneCycle(WithTotalSteps):
    """Rise from lr / div_factor to `lr`, then fall to lr / div_factor / final_div_factor.

    The 1cycle policy of Smith & Topin (2018). It equals `torch.optim.lr_scheduler.OneCycleLR`
    with max_lr = lr, total_steps = steps, pct_start = warmup_proportion and
    anneal_strategy = shape. With p = warmup_proportion and T = steps, the top is at update
    p * T - 1 and the end at T - 1, after which the learning rate is constant. With three phases
    the fall to lr / div_factor takes as long as the rise, and the third phase falls to the end.
    Each phase is half a cosine wave or a straight line. `optax.cosine_onecycle_schedule` is the
    same policy with the top at int(p * T) and the end at T. The momentum does not change.

    Args:
        lr: the learning rate at the top.
        warmup_proportion: the share of the steps in the rise; at most 0.5 with three phases.
        shape: "cosine" or "linear".
        div_factor: the first learning rate is `lr` divided by this, above 0.
        final_div_factor: the last learning rate is the first divided by this, above 0.
        three_phase: whether to return to the first learning rate before the last fall.
        steps: T; None is the length of the run.

    Example:
        >>> schedule = OneCycle(1.0, warmup_proportion=0.5, shape="linear", div_factor=4, steps=5)
        >>> [round(schedule(step), 4) for step in range(6)]
        [0.25, 0.75, 0.8, 0.4, 0.0, 0.0]
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    warmup_proportion: float = attrs.field(
        default=0.3, kw_only=True, converter=plain_float, validator=number(minimum=0, maximum=1)
    )
    shape: _Shape = attrs.field(default="cosine", kw_only=True, validator=one_of(_Shape))
    div_factor: float = attrs.field(
        default=25.0, kw_only=True, converter=plain_float, validator=number(above=0)
    )
    final_div_factor: float = attrs.field(
        default=1e4, kw_only=True, converter=plain_float, validator=number(above=0)
    )
    three_phase: bool = attrs.field(default=False, kw_only=True, validator=_check_phases)
    steps: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the phase that `step` is in."""
        horizon = known_total_steps(self, state)
        step, begin = min(step, horizon - 1), 0.0
        phases = self._phases(horizon)
        while step > phases[0][0]:
            begin = phases.pop(0)[0]
        end, low, high = phases[0]
        part = (step - begin) / (end - begin) if end > begin else 1.0
        if self.shape == "linear":
            return (high - low) * part + low
        return high + (low - high) / 2 * (math.cos(math.pi * part) + 1)

    def _phases(self, horizon: int) -> list[tuple[float, float, float]]:
        """Last step of each phase, the lr it begins with and the lr it ends with."""
        first = self.base / self.div_factor
        last = first / self.final_div_factor
        up = self.warmup_proportion * horizon
        if not self.three_phase:
            return [(up - 1, first, self.base), (horizon - 1, self.base, last)]
        return [
            (up - 1, first, self.base),
            (2 * up - 2, self.base, first),
            (horizon - 1, first, last),
        ]
