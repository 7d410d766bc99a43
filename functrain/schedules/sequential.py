"""Schedules one after another: from given updates on, or each for a part of the run."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import attrs

from functrain.core.schedule import Observed, Schedule, ScheduleState, as_schedule
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import integer, is_integer, optional, plain
from functrain.schedules.composite import check_observed, observed, own_end
from functrain.schedules.fields import plain_float
from functrain.schedules.total_steps import WithTotalSteps, known_total_steps


def _as_schedules(values: Iterable[Schedule | float]) -> tuple[Schedule, ...]:
    return tuple(map(as_schedule, values))


def _as_steps(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(plain, values))


def _check_boundaries(
    instance: Sequential, attribute: attrs.Attribute[Any], boundaries: tuple[int, ...]
) -> None:
    if not instance.schedules:
        raise ConfigurationError("Sequential: schedules must hold at least one, got none")
    if not all(map(is_integer, boundaries)):
        raise ConfigurationError(f"Sequential: boundaries: expected integers, got {boundaries!r}")
    if len(boundaries) != len(instance.schedules) - 1:
        raise ConfigurationError(
            "Sequential: boundaries: expected one fewer than schedules, got "
            f"{len(boundaries)} boundaries for {len(instance.schedules)} schedules"
        )
    if any(later <= earlier for earlier, later in pairwise((0, *boundaries))):
        raise ConfigurationError(
            f"Sequential: boundaries must rise from above 0, got {boundaries!r}"
        )


class InTurn(Schedule):
    """Schedules in turn; ``state["schedules"]`` has their states, ``state["step"]`` the updates."""

    __slots__ = ()

    def inner(self) -> Sequence[Schedule]:
        """Return the schedules."""
        raise NotImplementedError

    def in_charge(self, state: ScheduleState, step: int) -> tuple[int, int]:
        """Return the index of the schedule in charge of an update, and its own first update."""
        raise NotImplementedError

    @property
    def observes(self) -> Observed:
        """Return the kind of value that the schedules observe."""
        return observed(self, *self.inner())

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the lr of the schedule in charge."""
        index, start = self.in_charge(state, step)
        return self.inner()[index].lr(state["schedules"][index], step - start)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Count the update, and advance the schedule that was in charge of it."""
        after = self._changed(state, lambda schedule, own: schedule.advance(own))
        return {**after, "step": state["step"] + 1}

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Show the metric to the schedule in charge of the update at the state's step."""
        return self._changed(state, lambda schedule, own: schedule.observe(own, metric))

    def _changed(
        self, state: ScheduleState, change: Callable[[Schedule, ScheduleState], ScheduleState]
    ) -> ScheduleState:
        index, _ = self.in_charge(state, state["step"])
        children = list(state["schedules"])
        children[index] = change(self.inner()[index], children[index])
        return {**state, "schedules": children}


@explained
@attrs.frozen(repr=False)
class Sequential(InTurn):
    """Follow each schedule in turn, every one from its own step 0.

    The schedule at index i is in charge from update boundaries[i - 1] on, up to but without
    update boundaries[i]. Only the one in charge is advanced and sees metrics.

    Schedules without a horizon get the length of their own stretch, the last one what is left
    of the run.

    Args:
        schedules: at least one; numbers and functions of the step may stand for schedules.
        boundaries: the first update of each schedule but the first, rising.

    Example:
        >>> schedule = Sequential([1.0, lambda step: 0.5**step], boundaries=[2])
        >>> [schedule(step) for step in range(5)]
        [1.0, 1.0, 1.0, 0.5, 0.25]
    """

    schedules: tuple[Schedule, ...] = attrs.field(converter=_as_schedules, validator=check_observed)
    boundaries: tuple[int, ...] = attrs.field(converter=_as_steps, validator=_check_boundaries)

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`."""
        index, start = self.in_charge({}, step)
        return self.schedules[index](step - start)

    def inner(self) -> tuple[Schedule, ...]:
        """Return the schedules."""
        return self.schedules

    def init(self) -> ScheduleState:
        """Return {"step": updates done, "schedules": their states}."""
        return {"step": 0, "schedules": [schedule.init() for schedule in self.schedules]}

    def with_horizon(self, state: ScheduleState, steps: int) -> ScheduleState:
        """Give every schedule the length of its stretch, the last one what is left.

        Raises:
            ConfigurationError: that is too little for one of them.
        """
        edges = pairwise((0, *self.boundaries, steps))
        children = zip(self.schedules, state["schedules"], edges, strict=True)
        try:
            filled = [child.with_horizon(own, end - start) for child, own, (start, end) in children]
        except ConfigurationError as error:
            raise ConfigurationError(
                f"Sequential: the boundaries of a run of {steps} steps are {self.boundaries}. "
                f"{error}"
            ) from error
        return {**state, "schedules": filled}

    def horizon(self) -> int | None:
        """Return the update at which the last schedule ends by itself."""
        return own_end(self.schedules[-1], before=(0, *self.boundaries)[-1])

    def in_charge(self, state: ScheduleState, step: int) -> tuple[int, int]:
        """Return the index of the schedule in charge of an update, and its own first update."""
        index = bisect_right(self.boundaries, step)
        return index, (0, *self.boundaries)[index]


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
class Joined(InTurn, WithTotalSteps):
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

    def _open(self) -> ScheduleState:
        """Return the horizon, the updates at which schedules change, those done, their states."""
        children = [schedule.init() for schedule in self.inner()]
        return {"horizon": None, "edges": None, "step": 0, "schedules": children}

    def _edges(self, horizon: int) -> list[int]:
        sums = accumulate((share for share, _ in self.parts), initial=0.0)
        return [*(round(part * horizon) for part in list(sums)[:-1]), horizon]

    def _filled(self, state: ScheduleState, horizon: int) -> ScheduleState:
        edges = self._edges(horizon)
        if any(end <= start for start, end in pairwise(edges)):
            raise ConfigurationError(
                f"Joined: in a run of {horizon} steps a schedule would get none, the boundaries "
                f"being {edges}: lengthen the run (or steps=), or give it a larger proportion"
            )
        stretches = zip(self.inner(), state["schedules"], pairwise(edges), strict=True)
        children = [child.with_horizon(own, end - start) for child, own, (start, end) in stretches]
        return {**state, "horizon": horizon, "edges": edges, "schedules": children}

    def in_charge(self, state: ScheduleState, step: int) -> tuple[int, int]:
        """Return the index of the schedule in charge of an update, and its own first update."""
        known_total_steps(self, state)
        edges: list[int] = state["edges"]
        index = bisect_right(edges, step, 1, len(self.parts)) - 1
        return index, edges[index]
