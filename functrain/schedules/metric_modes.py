"""Whether schedules go by a metric, and know which of its values are better."""

from __future__ import annotations

from collections.abc import Iterator

from functrain.core.learning_rate import Schedules, with_mode, without_mode
from functrain.core.schedule import Mode, Schedule


def observes_evaluations(schedules: Schedules) -> bool:
    """Return whether a schedule observes evaluations, and says so."""
    return any(map(_observes_evaluations, _each(schedules)))


def needs_mode(schedules: Schedules) -> bool:
    """Return whether a schedule observes a metric and lacks the mode of its better value."""
    return any(any(without_mode(schedule)) for schedule in _each(schedules))


def check_mode(schedules: Schedules, mode: Mode | None) -> None:
    """Refuse schedules that would take less of a metric for better where more is better."""
    for schedule in filter(_observes_evaluations, _each(schedules)):
        with_mode(schedule, mode)


def _observes_evaluations(schedule: Schedule) -> bool:
    return getattr(schedule, "observes", None) == "evaluation"


def _each(schedules: Schedules) -> Iterator[Schedule]:
    if isinstance(schedules, dict):
        for inner in schedules.values():
            yield from _each(inner)
    else:
        yield schedules
