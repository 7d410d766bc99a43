"""Which of two values is better, for schedules that go by a metric and were not told."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import attrs

from functrain.core.direction import Mode
from functrain.errors import InvalidScheduleError
from functrain.schedules.from_torch import TorchSchedule
from functrain.schedules.plateau import Plateau


def directed(schedule: Any, mode: Mode | None) -> Any:
    """Return a schedule that takes more for better, also in schedules within it.

    Args:
        schedule: one that was told by its own ``mode`` stays as it is.
        mode: of the metric; ``"min"`` or ``None`` is what schedules assume that were not told.

    Raises:
        InvalidScheduleError: a schedule within it cannot be told by anyone but the user.

    Example:
        >>> directed(Plateau(0.1), "max").mode, directed(Plateau(0.1, mode="min"), "max").mode
        ('max', 'min')
    """
    if mode != "max" or not any(left_open(schedule)):
        return schedule
    if isinstance(schedule, Plateau):
        return attrs.evolve(schedule, mode="max")
    if type(schedule) in (tuple, list):
        return type(schedule)(directed(part, mode) for part in schedule)
    if isinstance(schedule, TorchSchedule) or not attrs.has(type(schedule)):
        raise InvalidScheduleError(
            f"{_named(schedule)} takes less for better by default, but more of the monitored "
            "metric is better. Give it mode='max' (or mode='min', if that is meant)"
        )
    fields = {field.alias: getattr(schedule, field.name) for field in attrs.fields(type(schedule))}
    return attrs.evolve(schedule, **{name: directed(part, mode) for name, part in fields.items()})


def left_open(schedule: Any) -> Iterator[Any]:
    """Yield the schedules in it that go by a metric of evaluations and have no mode."""
    if isinstance(schedule, Plateau):
        if schedule.mode is None and schedule.observes == "evaluation":
            yield schedule
    elif isinstance(schedule, TorchSchedule):
        if schedule.base is not None and schedule.observes == "evaluation" and _is_open(schedule):
            yield schedule
    else:
        for part in _parts(schedule):
            yield from left_open(part)


def _parts(schedule: Any) -> Iterator[Any]:
    if isinstance(schedule, tuple | list):
        yield from schedule
    elif isinstance(getattr(schedule, "__dict__", None), dict) and hasattr(schedule, "observe"):
        yield from vars(schedule).values()
    elif attrs.has(type(schedule)) and hasattr(schedule, "observe"):
        for field in attrs.fields(type(schedule)):
            yield getattr(schedule, field.name)


def _is_open(schedule: TorchSchedule) -> bool:
    """Whether a scheduler of torch has the mode "min" and nobody wrote it."""
    factory, written = schedule.factory, dict(schedule.kwargs)
    while isinstance(factory, functools.partial):
        written |= factory.keywords
        factory = factory.func
    return "mode" not in written and schedule.init()["scheduler"].get("mode") == "min"


def _named(schedule: Any) -> str:
    if isinstance(schedule, TorchSchedule):
        return schedule._name
    inside = next(left_open(schedule))
    return f"{type(inside).__name__} in {type(schedule).__name__}"
