"""A learning rate that falls when the training loss jumps, and may come back."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import attrs

from functrain.core.schedule import Observed, Schedule, ScheduleState, as_schedule
from functrain.errors import ConfigurationError, MissingMetricWarning, ScheduleStateError
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, one_of
from functrain.schedules.composite import check_observes_steps, own_end
from functrain.schedules.fields import plain_float

_ThresholdMode: TypeAlias = Literal["std", "rel"]


def _check_can_recover(instance: Spike, attribute: attrs.Attribute[Any], floor: float) -> None:
    if instance.factor == 0 and instance.recovery > 1 and floor == 0:
        raise ConfigurationError(
            "Spike: a rate multiplied by factor=0 cannot recover: give a floor above 0"
        )


@explained
@attrs.frozen(repr=False)
class Spike(Schedule):
    """Multiply a schedule's learning rate by `factor` when the loss jumps above its mean.

    It is driven by the training loss of each step, where Plateau is driven by evaluations. With
    m and s the running mean and standard deviation of the losses (exponential moving averages,
    plain averages until there are enough), a loss is a spike when it is above
    m + threshold * s ("std"; s is taken to be at least eps * |m|), or above
    m + threshold * |m| ("rel"), or not finite. A spike enters the averages as the bound that it
    broke, so that one jump does not hide the next. The spike after `patience` spikes in a row
    lowers the lr; during the cooldown none counts. Outside of it, each loss that is no spike
    multiplies the reduction by `recovery`, until the schedule's own lr is back.

    Args:
        schedule: what gives the lr when there are no spikes; or a number, or a function of the
            step.
        factor: what to multiply with, at least 0 and below 1.
        threshold: how far above the mean a spike is, above 0.
        threshold_mode: "std", in standard deviations, or "rel", as a part of the mean.
        decay: of the running averages, from 0 to below 1; 0.99 looks back about 100 losses.
        patience: how many spikes in a row are borne.
        cooldown: losses after a reduction in which spikes do not count.
        burn_in: finite losses to see before any of them can be a spike.
        recovery: at least 1, by which a reduction shrinks at each loss; 1 keeps it.
        floor: the least part of the schedule's lr that is left, from 0 to 1; of 0 a long row of
            spikes, such as losses that stay NaN, leaves next to nothing.
        eps: the least standard deviation, as a part of the mean.

    Example:
        >>> schedule = Spike(1.0, factor=0.5, burn_in=3, cooldown=1, recovery=2.0)
        >>> state, lrs = schedule.init(), []
        >>> for step, loss in enumerate([3.0, 2.9, 2.8, 9.0, 2.7, 2.6]):
        ...     state = schedule.observe(state, loss)
        ...     lrs.append(schedule.lr(state, step + 1))
        >>> lrs
        [1.0, 1.0, 1.0, 0.5, 0.5, 1.0]
    """

    schedule: Schedule = attrs.field(converter=as_schedule, validator=check_observes_steps)
    factor: float = attrs.field(
        default=0.5, converter=plain_float, validator=number(minimum=0, below=1)
    )
    threshold: float = attrs.field(default=5.0, converter=plain_float, validator=number(above=0))
    threshold_mode: _ThresholdMode = attrs.field(default="std", validator=one_of(_ThresholdMode))
    decay: float = attrs.field(
        default=0.99, converter=plain_float, validator=number(minimum=0, below=1)
    )
    patience: int = attrs.field(default=0, validator=integer(minimum=0))
    cooldown: int = attrs.field(default=100, validator=integer(minimum=0))
    burn_in: int = attrs.field(default=100, validator=integer(minimum=1))
    recovery: float = attrs.field(default=1.0, converter=plain_float, validator=number(minimum=1))
    floor: float = attrs.field(
        default=0.0,
        converter=plain_float,
        validator=[number(minimum=0, maximum=1), _check_can_recover],
    )
    eps: float = attrs.field(default=1e-3, converter=plain_float, validator=number(minimum=0))

    def __call__(self, step: int) -> float:
        """Raise, as no step number determines this lr."""
        raise ScheduleStateError(
            "Spike's lr depends on the losses it has observed, not on the step: use "
            "schedule.lr(state, step) with the state that observe returned"
        )

    @property
    def observes(self) -> Observed:
        """The training loss of each step."""
        return "step"

    def init(self) -> ScheduleState:
        """Return the part of the lr that is left, the averages, the counts, and the schedule's."""
        return {
            "scale": 1.0,
            "mean": 0.0,
            "variance": 0.0,
            "seen": 0,
            "spikes": 0,
            "cooldown": 0,
            "schedule": self.schedule.init(),
        }

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the part of the schedule's lr that the spikes have left."""
        scale: float = state["scale"]
        return scale * self.schedule.lr(state["schedule"], step)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Advance the schedule."""
        return {**state, "schedule": self.schedule.advance(state["schedule"])}

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Return the state after an update.

        Args:
            state: the schedule's state.
            metric: the training loss of the step; None leaves the state as it is, with a notice.

        Warns:
            MissingMetricWarning: the metric is None.
        """
        if metric is None:
            notice = "Spike was shown no loss at this step; its lr stays as it is"
            warn(notice, MissingMetricWarning)
            return state
        loss, bound = float(metric), self._bound(state)
        finite = math.isfinite(loss)
        spike = not finite or loss > bound
        inner = self.schedule.observe(state["schedule"], metric)
        after = {**state, **self._reduced(state, spike), "schedule": inner}
        return {**after, **self._averaged(state, loss, bound)} if finite else after

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Give the schedule the length of the run."""
        return {**state, "schedule": self.schedule.with_horizon(state["schedule"], steps)}

    def horizon(self) -> int | None:
        """Return the update at which the schedule ends by itself."""
        return own_end(self.schedule)

    def _bound(self, state: ScheduleState) -> float:
        """Return the largest loss that is no spike; while there are few, any finite one is none."""
        mean: float = state["mean"]
        if state["seen"] < self.burn_in:
            return math.inf
        if self.threshold_mode == "rel":
            return mean + self.threshold * abs(mean)
        deviation = max(math.sqrt(state["variance"]), self.eps * abs(mean))
        return mean + self.threshold * deviation

    def _reduced(self, state: ScheduleState, spike: bool) -> ScheduleState:
        scale, cooldown = state["scale"], state["cooldown"]
        spikes = state["spikes"] + 1 if spike else 0
        if cooldown > 0:
            return {"spikes": 0, "cooldown": cooldown - 1}
        if spikes > self.patience:
            scale = max(scale * self.factor, self.floor)
            return {"scale": scale, "spikes": 0, "cooldown": self.cooldown}
        if not spike:
            scale = min(scale * self.recovery, 1.0)
        return {"scale": scale, "spikes": spikes}

    def _averaged(self, state: ScheduleState, loss: float, bound: float) -> ScheduleState:
        # A bound at the mean itself would hold the averages where they are for ever.
        entering = min(loss, bound) if bound > state["mean"] else loss
        weight = max(1 / (state["seen"] + 1), 1 - self.decay)
        delta = entering - state["mean"]
        variance = (1 - weight) * (state["variance"] + weight * delta * delta)
        if not math.isfinite(variance):
            return {}  # so far away that no average could be taken with it
        mean = state["mean"] + weight * delta
        return {"mean": mean, "variance": variance, "seen": state["seen"] + 1}
