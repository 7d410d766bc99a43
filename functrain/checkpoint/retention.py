"""Decide which checkpoints to keep and which is best: pure functions of their metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs

from functrain.checkpoint.format.records import Entry
from functrain.core.schedule import Mode
from functrain.errors.validators import integer, number, one_of, optional
from functrain.metrics.mode import mode_of_name, resolved_mode

Entries = Mapping[int, Entry]


class Rule(Protocol):
    """A retention rule; a checkpoint is pruned when no rule keeps it."""

    def kept(self, entries: Entries) -> set[int]:
        """Return the steps to keep."""


@attrs.frozen
class Last:
    """Keep the newest.

    Args:
        count: how many.

    Example:
        >>> sorted(Last(2).kept({10: Entry({}), 20: Entry({}), 30: Entry({})}))
        [20, 30]
    """

    count: int = attrs.field(default=1, validator=integer(minimum=1))

    def kept(self, entries: Entries) -> set[int]:
        """Return the highest steps."""
        return set(sorted(entries)[-self.count :])


@attrs.frozen
class Best:
    """Keep the best by a metric.

    Args:
        metric: its name. A checkpoint without it, or whose value is NaN or infinite, is never best.
        mode: whether ``"min"`` or ``"max"`` is best; of equal values the earlier step wins. The
            default is the mode that the run recorded, else the one its name implies.
        count: how many.

    Example:
        >>> entries = {1: Entry({"loss": 0.5}), 2: Entry({"loss": math.nan}), 3: Entry({"loss": 1})}
        >>> Best("loss").ranked(entries)
        [1, 3]
    """

    metric: str = "loss"
    mode: Mode | None = attrs.field(default=None, validator=optional(one_of(Mode)))
    count: int = attrs.field(default=1, validator=integer(minimum=0))

    def direction(self, entries: Entries) -> Mode | None:
        """Return the mode, or ``None`` if it is unknown."""
        if self.mode is not None:
            return self.mode
        for step in sorted(entries, reverse=True):
            said = entries[step].monitored
            if said.get("monitor") == self.metric and said.get("mode") in ("min", "max"):
                mode: Mode = said["mode"]
                return mode
        return mode_of_name(self.metric)

    def check(self, metrics: Mapping[str, Any]) -> None:
        """Raise if whether a low or a high value of the metric is better is unknown."""
        if self.count and self.metric in metrics:
            resolved_mode(self.metric, self.mode, where="Checkpoints")

    def ranked(self, entries: Entries) -> list[int]:
        """Return all steps that have the metric, from best to worst."""
        values = self._values(entries)
        if not values:
            return []
        mode = resolved_mode(self.metric, self.direction(entries), where="mode of the best")
        sign = 1 if mode == "min" else -1
        return sorted(values, key=lambda step: (sign * values[step], step))

    def kept(self, entries: Entries) -> set[int]:
        """Return the first of :meth:`ranked`; without a mode, all steps that have the metric."""
        if self.direction(entries) is None:
            return set(self._values(entries)) if self.count else set()
        return set(self.ranked(entries)[: self.count])

    def _values(self, entries: Entries) -> dict[int, Any]:
        return {
            step: entry.metrics[self.metric]
            for step, entry in entries.items()
            if _is_finite(entry.metrics.get(self.metric))
        }


@attrs.frozen
class EverySteps:
    """Keep every n-th step.

    Example:
        >>> sorted(EverySteps(20).kept({10: Entry({}), 20: Entry({}), 40: Entry({})}))
        [20, 40]
    """

    steps: int = attrs.field(validator=integer(minimum=1))

    def kept(self, entries: Entries) -> set[int]:
        """Return the multiples of ``steps``."""
        return {step for step in entries if step % self.steps == 0}


@attrs.frozen
class EveryMinutes:
    """Keep the first checkpoint saved in each interval of time.

    Intervals are fixed on the wall clock, so the result does not depend on earlier pruning.

    Example:
        >>> saved = {1: Entry({}, 0.0), 2: Entry({}, 50.0), 3: Entry({}, 70.0)}
        >>> sorted(EveryMinutes(1).kept(saved))
        [1, 3]
    """

    minutes: float = attrs.field(validator=number(above=0, finite=False))

    def kept(self, entries: Entries) -> set[int]:
        """Return the first step of each interval, and all steps without a known time."""
        firsts: dict[Any, int] = {}
        for step in sorted(entries, key=lambda step: (entries[step].saved_at or 0.0, step)):
            saved_at = entries[step].saved_at
            span = ("unknown", step) if saved_at is None else saved_at // (60 * self.minutes)
            firsts.setdefault(span, step)
        return set(firsts.values())


@attrs.frozen(kw_only=True)
class Retention:
    """The options of a store that say what to keep and what is best; see ``Checkpoints``."""

    keep_last: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))
    keep_best: int = attrs.field(default=1, validator=integer(minimum=0))
    monitor: str = attrs.field(default="loss")
    mode: Mode | None = attrs.field(default=None, validator=optional(one_of(Mode)))
    keep_every_steps: int | None = attrs.field(default=None, validator=optional(integer(minimum=1)))
    keep_every_minutes: float | None = attrs.field(
        default=None, validator=optional(number(above=0, finite=False))
    )
    keep: Sequence[Rule] = attrs.field(default=(), converter=tuple)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The retention rules; without any besides the best, nothing is pruned.

        Example:
            >>> Retention().rules, Retention(keep_last=2).rules
            ((), (Last(count=2), Last(count=1), Best(metric='loss', mode=None, count=1)))
        """
        rules: list[Rule] = [] if self.keep_last is None else [Last(self.keep_last)]
        rules += [] if self.keep_every_steps is None else [EverySteps(self.keep_every_steps)]
        rules += [] if self.keep_every_minutes is None else [EveryMinutes(self.keep_every_minutes)]
        rules += self.keep
        return (*rules, Last(1), self._best) if rules else ()

    @property
    def _best(self) -> Best:
        return Best(self.monitor, self.mode, self.keep_best)


def prunable(entries: Entries, rules: Sequence[Rule], just_saved: int | None) -> list[int]:
    """Return the steps whose checkpoints may be removed.

    ``just_saved`` is always kept: after a rewind, a run saves below older steps.

    Example:
        >>> entries = {step: Entry({}) for step in (10, 20, 30, 40)}
        >>> prunable(entries, [Last(1), EverySteps(20)], just_saved=40)
        [10, 30]
    """
    if not rules:
        return []
    kept = {just_saved}.union(*(rule.kept(entries) for rule in rules))
    return [step for step in sorted(entries) if step not in kept]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
