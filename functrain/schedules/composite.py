"""The parts of schedules that are made of other schedules."""

from __future__ import annotations

from typing import Any

from functrain.core.schedule import Observed, Schedule, observed_by
from functrain.errors import ConfigurationError


def observed(outer: Schedule, *inner: Schedule) -> Observed:
    """Return what the schedules inside observe."""
    kinds = set(map(observed_by, inner)) - {None}
    if len(kinds) > 1:
        raise ConfigurationError(
            f"{type(outer).__name__}: some of its schedules observe the training loss of each "
            "step and others a metric of evaluations; one schedule can be shown only one of them. "
            "(A class that does not inherit from Schedule counts as one that observes evaluations)"
        )
    return kinds.pop() if kinds else None


def check_observed(outer: Any, attribute: Any, value: Any) -> None:
    """Validate that the schedules inside observe the same thing."""
    _ = outer.observes


def check_observes_steps(outer: Any, attribute: Any, value: Schedule) -> None:
    """Validate that the schedule inside one of steps does not want evaluations."""
    if observed(outer, value) == "evaluation":
        raise ConfigurationError(
            f"{type(outer).__name__} observes the training loss of each step, and the "
            f"{type(value).__name__} inside it a metric of evaluations; one schedule can be shown "
            "only one of them. (A class that does not inherit from Schedule counts as one that "
            "observes evaluations)"
        )


def own_end(schedule: Schedule, before: int = 0) -> int | None:
    """Return where a schedule that begins after so many updates ends by itself, or None."""
    if not hasattr(schedule, "horizon"):
        return None
    own = schedule.horizon()
    return None if own is None else before + own
