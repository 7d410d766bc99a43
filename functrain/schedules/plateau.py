"""A learning rate that falls when a metric has stopped getting better."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import attrs

from functrain.core.schedule import Mode, Observed, Schedule, ScheduleState
from functrain.errors import MissingMetricWarning, ScheduleStateError
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, one_of, optional
from functrain.schedules.fields import plain_float

_ThresholdMode: TypeAlias = Literal["rel", "abs"]


@explained
@attrs.frozen(repr=False)
class Plateau(Schedule):
    """Multiply the learning rate by `factor` after `patience` evaluations without progress.

    The rule of `torch.optim.lr_scheduler.ReduceLROnPlateau`, applied at each `observe`: a
    metric is better when it beats the best one by the threshold (NaN never does); the miss
    after `patience` misses in a row lowers the lr; during the cooldown no miss counts.

    Args:
        lr: the learning rate at first.
        factor: what to multiply it with, at least 0 and below 1.
        patience: how many misses in a row are borne.
        threshold: by how much a metric must beat the best one.
        threshold_mode: "rel", as a part of the best one, or "abs".
        mode: "min" when less is better, "max" when more is. By default `fit` takes it from the
            metric that it monitors; a number without a name, as the training loss or in a loop of
            your own, is taken for a loss.
        cooldown: evaluations after a reduction in which misses do not count.
        min_lr: the floor of the learning rate.
        eps: a reduction by no more than this is not made.
        observes: "evaluation", or "step" to be shown the training loss of each step instead; the
            counts are then of steps.

    Example:
        >>> schedule = Plateau(1.0, factor=0.5, patience=1)
        >>> state = schedule.init()
        >>> for loss in [3.0, 3.0, 3.0]:
        ...     state = schedule.observe(state, loss)
        >>> schedule.lr(state, step=100)
        0.5
    """

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    factor: float = attrs.field(
        default=0.1, converter=plain_float, validator=number(minimum=0, below=1)
    )
    patience: int = attrs.field(default=10, validator=integer(minimum=0))
    threshold: float = attrs.field(default=1e-4, converter=plain_float, validator=number(minimum=0))
    threshold_mode: _ThresholdMode = attrs.field(default="rel", validator=one_of(_ThresholdMode))
    mode: Mode | None = attrs.field(default=None, validator=optional(one_of("min", "max")))
    cooldown: int = attrs.field(default=0, validator=integer(minimum=0))
    min_lr: float = attrs.field(default=0.0, converter=plain_float, validator=number(minimum=0))
    eps: float = attrs.field(default=1e-8, converter=plain_float, validator=number(minimum=0))
    observes: Observed = attrs.field(
        default="evaluation", kw_only=True, validator=one_of("evaluation", "step")
    )

    def __call__(self, step: int) -> float:
        """Raise, as no step number determines this lr."""
        raise ScheduleStateError(
            "Plateau's lr depends on the metrics it has observed, not on the step: use "
            "schedule.lr(state, step) with the state that observe returned"
        )

    @property
    def needs_mode(self) -> bool:
        """Return whether it observes evaluations and has no mode."""
        return self.mode is None and self.observes == "evaluation"

    def init(self) -> ScheduleState:
        """Return the lr, the best metric so far, the misses in a row, the cooldown left."""
        best = None if self.mode is None else self._worst
        return {"lr": self.base, "best": best, "misses": 0, "cooldown": 0}

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the present lr, whatever the step."""
        lr: float = state["lr"]
        return lr

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Return the state after an evaluation.

        Args:
            state: the schedule's state.
            metric: what the evaluation gave; None leaves the state as it is, with a notice.

        Warns:
            MissingMetricWarning: the metric is None.
        """
        if metric is None:
            notice = f"Plateau was shown no metric at this {self.observes}; its lr stays as it is"
            warn(notice, MissingMetricWarning)
            return state
        metric = float(metric)
        best = self._worst if state["best"] is None else state["best"]
        better = self._is_better(metric, best)
        best = metric if better else best
        misses = 0 if better else state["misses"] + 1
        cooldown = state["cooldown"]
        if cooldown > 0:
            misses, cooldown = 0, cooldown - 1
        if misses <= self.patience:
            return {"lr": state["lr"], "best": best, "misses": misses, "cooldown": cooldown}
        lr = self._reduced(state["lr"])
        return {"lr": lr, "best": best, "misses": 0, "cooldown": self.cooldown}

    @property
    def _worst(self) -> float:
        return -math.inf if self.mode == "max" else math.inf

    def _is_better(self, metric: float, best: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            bar = best * (1 + sign * self.threshold)
        else:
            bar = best + sign * self.threshold
        return metric > bar if self.mode == "max" else metric < bar

    def _reduced(self, lr: float) -> float:
        reduced = max(lr * self.factor, self.min_lr)
        return reduced if lr - reduced > self.eps else lr
