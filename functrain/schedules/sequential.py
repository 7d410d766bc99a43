"""Schedules one after another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import attrs

from functrain.core.given_schedules import as_schedule
from functrain.core.schedule import Observed, Schedule, ScheduleState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import is_integer, plain
from functrain.schedules.composite import check_observed, observed, own_end


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
