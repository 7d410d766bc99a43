"""Schedules one after another, each for a part of the run."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

import attrs

from functrain.core.given_schedules import as_schedule
from functrain.core.schedule import Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, optional
from functrain.schedules.composite import check_observed
from functrain.schedules.fields import plain_float
from functrain.schedules.sequential import InTurn
from functrain.schedules.total_steps import known_total_steps

Part = tuple[float, Schedule]


def _as_parts(given: Iterable[Any]) -> Any:
    if not isinstance(given, Iterable) or isinstance(given, str):
        return given
    pairs = [tuple(pair) if isinstance(pair, Iterable) else (pair,) for pair in given]
    if any(len(pair) != 2 for pair in pairs):
        return given
    return tuple((plain_float(share), as_schedule(schedule)) for share, schedule in pairs)


def _check_parts(instance: Joined, attribute: attrs.Attribute[Any], parts: Any) -> None:
    shares = [part[0] for part in parts] if isinstance(parts, tuple) else []
    good = all(isinstance(share, float) and 0 < share <= 1 for share in shares)
    if not shares or not good or not math.isclose(math.fsum(shares), 1, abs_tol=1e-9):
        raise ConfigurationError(
            "Joined: parts: expected (proportion, schedule) pairs whose proportions are above 0 "
            f"and add up to 1, got {parts!r}"
        )


@explained
@attrs.frozen(repr=False)
class Joined(InTurn):
    """Follow each schedule for its part of the run, each from its own step 0.

    It is Sequential with boundaries in proportion to the run: the i-th one is the sum of the
    first i proportions times the horizon, rounded to the nearest step, so that one recipe
    serves runs of any length (`optax.join_schedules` and torch's SequentialLR take steps).
    Only the schedule in charge is advanced and sees metrics. Schedules without a horizon get
    the length of their own part.

    Args:
        parts: (proportion, schedule) pairs whose proportions add up to 1; numbers and
            functions of the step may stand for schedules.
        steps: the horizon; None is the length of the run.

    Example:
        >>> from functrain.schedules import Linear
        >>> schedule = Joined([(0.25, Linear(0.0, end=1.0)), (0.75, Linear(1.0))], steps=8)
        >>> [round(schedule(step), 3) for step in range(9)]
        [0.0, 0.5, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167, 0.0]
    """

    parts: tuple[Part, ...] = attrs.field(
        converter=_as_parts, validator=[_check_parts, check_observed]
    )
    steps: int | None = attrs.field(
        default=None, kw_only=True, validator=optional(integer(minimum=1))
    )

    def __attrs_post_init__(self) -> None:
        self.init()  # which checks that the parts fit

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`, advancing the schedule in charge up to it."""
        state = self.init()
        index, start = self.in_charge(state, step)
        schedule, own = self.parts[index][1], state["schedules"][index]
        if getattr(schedule, "observes", None) is not None:
            return schedule(step - start)  # it says that it needs metrics
        for _ in range(step - start):
            own = schedule.advance(own)
        return schedule.lr(own, step - start)

    def inner(self) -> list[Schedule]:
        """Return the schedules."""
        return [schedule for _, schedule in self.parts]

    def init(self) -> ScheduleState:
        """Return the horizon, the updates at which schedules change, those done, their states."""
        children = [schedule.init() for schedule in self.inner()]
        state = {"horizon": None, "edges": None, "step": 0, "schedules": children}
        return state if self.steps is None else self._filled(state, self.steps)

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Return the state with `steps` as its horizon, if it had none, each schedule filled."""
        return state if state["horizon"] is not None else self._filled(state, steps)

    def _edges(self, horizon: int) -> list[int]:
        sums = accumulate((share for share, _ in self.parts), initial=0.0)
        return [*(round(part * horizon) for part in list(sums)[:-1]), horizon]

    def _filled(self, state: ScheduleState, steps: int) -> ScheduleState:
        edges = self._edges(steps)
        if any(end <= start for start, end in pairwise(edges)):
            raise ConfigurationError(
                f"Joined: in a run of {steps} steps a schedule would get none, the boundaries "
                f"being {edges}: lengthen the run (or steps=), or give it a larger proportion"
            )
        stretches = zip(self.inner(), state["schedules"], pairwise(edges), strict=True)
        children = [child.with_horizon(own, end - start) for child, own, (start, end) in stretches]
        return {**state, "horizon": steps, "edges": edges, "schedules": children}

    def in_charge(self, state: ScheduleState, step: int) -> tuple[int, int]:
        """Return the index of the schedule in charge of an update, and its own first update."""
        known_total_steps(self, state)
        edges: list[int] = state["edges"]
        index = bisect_right(edges, step, 1, len(self.parts)) - 1
        return index, edges[index]
