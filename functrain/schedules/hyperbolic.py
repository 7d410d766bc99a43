"""Learning rates along a hyperbola, whose beginning hardly depends on the length of the run."""

from __future__ import annotations

import math
from typing import Any

import attrs

from functrain.core.schedule import ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, number, optional, refused
from functrain.schedules.fields import plain_float
from functrain.schedules.total_steps import (
    WithTotalSteps,
    check_total_steps,
    known_total_steps,
)


def _check_infimum(schedule: Any, attribute: attrs.Attribute[Any], infimum: float) -> None:
    lowest = number(above=0) if isinstance(schedule, ExpHyperbolic) else number(minimum=0)
    lowest(schedule, attribute, infimum)
    if not infimum < schedule.base:
        name = f"{type(schedule).__name__}: infimum_lr"
        raise refused(name, f"a number below lr={schedule.base!r}", infimum)


@attrs.frozen(repr=False)
class _Hyperbola(WithTotalSteps):
    """A curve along the hyperbola of Kim (2024); a subclass says which."""

    base: float = attrs.field(alias="lr", converter=plain_float, validator=number(minimum=0))
    upper_bound: int = attrs.field(kw_only=True, validator=integer(minimum=1))
    infimum_lr: float = attrs.field(kw_only=True, converter=plain_float, validator=_check_infimum)
    max_iter: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )

    def __attrs_post_init__(self) -> None:
        if self.max_iter is not None:
            self._filled(self.init(), self.max_iter)

    def curve(self, drop: float) -> float:
        """Return the lr after a drop of the hyperbola, 0 at the first update."""
        raise NotImplementedError

    def init(self) -> ScheduleState:
        """Return {"horizon": max_iter}."""
        return {"horizon": self.max_iter}

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the point of the curve at `step`, or its last one."""
        horizon, bound = known_total_steps(self, state, "max_iter"), self.upper_bound
        return self.curve(_height(min(step, horizon), horizon, bound) - _height(0, horizon, bound))

    def _filled(self, state: ScheduleState, horizon: int) -> ScheduleState:
        if check_total_steps(self, horizon) > self.upper_bound:
            raise ConfigurationError(
                f"{type(self).__name__}: upper_bound={self.upper_bound}: expected at least "
                f"max_iter, the length of the run where it is not given, got {horizon}"
            )
        return {"horizon": horizon}


def _height(step: int, horizon: int, bound: int) -> float:
    """Return g(step)."""
    return math.sqrt((horizon - step) / bound * (2 - (horizon + step) / bound))


@explained
@attrs.frozen(repr=False)
class Hyperbolic(_Hyperbola):
    """A hyperbola from `lr` down towards `infimum_lr`.

    HyperbolicLR of Kim (2024), which begins nearly the same in runs of any length. Formula, with
    N = max_iter and U = upper_bound:
    lr + (lr - infimum_lr) * (g(step) - g(0)), g(x) = sqrt((N - x) / U * (2 - (N + x) / U)),
    and its value at N from there on: infimum_lr if N = U, else more.

    Args:
        lr: the learning rate of the first update.
        upper_bound: U, the steps of the longest run to compare with.
        infimum_lr: the last learning rate of the longest run, below lr.
        max_iter: N, from 1 to U; None is the length of the run.

    Example:
        >>> schedule = Hyperbolic(1.0, upper_bound=8, infimum_lr=0.0, max_iter=4)
        >>> [round(schedule(step), 3) for step in range(6)]
        [1.0, 0.852, 0.693, 0.509, 0.134, 0.134]
    """

    def curve(self, drop: float) -> float:
        """Return the lr after a drop of the hyperbola, 0 at the first update."""
        return self.base + (self.base - self.infimum_lr) * drop


@explained
@attrs.frozen(repr=False)
class ExpHyperbolic(_Hyperbola):
    """The curve of Hyperbolic for the logarithm of the learning rate.

    ExpHyperbolicLR of Kim (2024). Formula, with N = max_iter and U = upper_bound:
    lr * (lr / infimum_lr)**(g(step) - g(0)), g(x) = sqrt((N - x) / U * (2 - (N + x) / U)),
    and its value at N from there on: infimum_lr if N = U, else more.

    Args:
        lr: the learning rate of the first update.
        upper_bound: U, the steps of the longest run to compare with.
        infimum_lr: the last learning rate of the longest run, above 0 and below lr.
        max_iter: N, from 1 to U; None is the length of the run.

    Example:
        >>> schedule = ExpHyperbolic(1.0, upper_bound=8, infimum_lr=0.01, max_iter=4)
        >>> [round(schedule(step), 3) for step in range(6)]
        [1.0, 0.506, 0.243, 0.104, 0.019, 0.019]
    """

    def curve(self, drop: float) -> float:
        """Return the lr after a drop of the hyperbola, 0 at the first update."""
        return self.base * math.pow(self.base / self.infimum_lr, drop)
