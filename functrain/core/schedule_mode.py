"""Whether less or more of a metric is better, for schedules that were not given a mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from functrain.core.schedule import Mode
from functrain.errors import ConfigurationError


def with_mode(schedule: Any, mode: Mode | None) -> Any:
    """Return a schedule that takes more for better, also in schedules within it.

    Args:
        schedule: one that has a ``mode`` of its own stays as it is.
        mode: of the metric. Schedules without a mode assume ``"min"``, so ``"min"`` and ``None``
            change nothing.

    Raises:
        ConfigurationError: only the user can give a mode to a schedule within it.

    Example:
        >>> from functrain.schedules import Plateau
        >>> with_mode(Plateau(0.1), "max").mode, with_mode(Plateau(0.1, mode="min"), "max").mode
        ('max', 'min')
    """
    if mode != "max" or not any(without_mode(schedule)):
        return schedule
    if type(schedule) in (tuple, list):
        return type(schedule)(with_mode(part, mode) for part in schedule)
    needs_mode = _needs_mode(schedule)
    if needs_mode and hasattr(schedule, "mode"):
        return attrs.evolve(schedule, mode=mode)
    if needs_mode or not attrs.has(type(schedule)):
        raise ConfigurationError(
            f"{_named(schedule)} takes less for better by default, but more of the monitored "
            "metric is better. Give it mode='max' (or mode='min', if that is meant)"
        )
    fields = {field.alias: getattr(schedule, field.name) for field in attrs.fields(type(schedule))}
    return attrs.evolve(schedule, **{name: with_mode(part, mode) for name, part in fields.items()})


def without_mode(schedule: Any) -> Iterator[Any]:
    """Yield the schedules in it that go by a metric of evaluations and have no mode."""
    if _needs_mode(schedule):
        yield schedule
    else:
        for part in _parts(schedule):
            yield from without_mode(part)


def _needs_mode(part: Any) -> bool:
    # Asked of the class: a wrapper may delegate every attribute to the schedule within it.
    return hasattr(type(part), "needs_mode") and part.needs_mode is True


def _parts(schedule: Any) -> Iterator[Any]:
    if isinstance(schedule, tuple | list):
        yield from schedule
    elif isinstance(getattr(schedule, "__dict__", None), dict) and hasattr(schedule, "observe"):
        yield from vars(schedule).values()
    elif attrs.has(type(schedule)) and hasattr(schedule, "observe"):
        for field in attrs.fields(type(schedule)):
            yield getattr(schedule, field.name)


def _named(schedule: Any) -> str:
    inner = next(without_mode(schedule))
    if inner is schedule:
        return str(getattr(schedule, "name", type(schedule).__name__))
    return f"{type(inner).__name__} in {type(schedule).__name__}"
