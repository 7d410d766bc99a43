"""The states of rules in a resumed run, which matches rules by what they are, not by their place.

A rule that the run had goes on where it stands. A rule whose options were changed, such as its
patience, is shown the evaluations so far, and stands where it would if the run had begun with it.
Any other rule begins from scratch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from functrain.core.recipe import plain_data
from functrain.errors import MissingMetricWarning
from functrain.metrics.log_file import Row
from functrain.training.early_stopping.rule import FirstOf, Rule, State, each_rule, fits

Record = Mapping[str, Any]


def describe(rule: Any) -> dict[str, Any]:
    """Return the class and the options of a rule as plain data, except what it monitors."""
    named = attrs.has(type(rule))
    own = attrs.asdict(rule, recurse=False) if named else getattr(rule, "__dict__", {})
    options = {name: value for name, value in own.items() if name not in ("monitor", "mode")}
    return {"type": type(rule).__qualname__, **plain_data(options)}


def resumed(
    rule: Rule,
    now: Sequence[Record],
    before: Sequence[Record],
    saved: State,
    rows: Callable[[], Sequence[Row]],
) -> State:
    """Return the state of a rule, or of several.

    Args:
        rule: the rule of this call.
        now: the record of each rule in it.
        before: the records of the rules that the run had.
        saved: their state.
        rows: returns the metrics of each evaluation so far.
    """
    old = list(_each_state(saved))
    states = []
    for one, record, at in zip(each_rule(rule), now, match(now, before[: len(old)]), strict=True):
        if at is None or not fits(one, old[at]):
            states.append(one.init())
        elif is_same(record, before[at]):
            states.append(old[at])
        else:
            states.append(_replayed(one, before[at].get("mode"), rows()) or _going(old[at]))
    return _joined(rule, iter(states))


def match(now: Sequence[Record], before: Sequence[Record]) -> list[int | None]:
    """Return for each rule the place of the rule that it was before, ``None`` for a new one.

    Example:
        >>> loss = {"monitor": "loss", "mode": "min", "rule": {"type": "EarlyStop", "patience": 3}}
        >>> more = {**loss, "rule": {"type": "EarlyStop", "patience": 9}}
        >>> match([more, {**loss, "monitor": "error"}, loss], before=[loss, loss])
        [1, None, 0]
    """
    found: list[int | None] = [None] * len(now)
    for alike in (is_same, _is_of_its_kind):
        for at, record in enumerate(now):
            left = (place for place in range(len(before)) if place not in found)
            if found[at] is None:
                found[at] = next((place for place in left if alike(record, before[place])), None)
    return found


def is_same(now: Record, before: Record) -> bool:
    """Return whether two records are of the same rule; those of older versions lack its options."""
    return same_metric(now, before) and before.get("rule", now["rule"]) == now["rule"]


def _is_of_its_kind(now: Record, before: Record) -> bool:
    return same_metric(now, before) and before["rule"]["type"] == now["rule"]["type"]


def same_metric(now: Record, before: Record) -> bool:
    """Return whether values by two criteria can be compared; an unknown mode may be the same."""
    modes = {before.get("mode"), now["mode"]} - {None}
    return full_name(str(before.get("monitor"))) == full_name(now["monitor"]) and len(modes) < 2


def full_name(monitor: str) -> str:
    """Return the one name of ``"loss"`` and ``"eval/loss"``."""
    return monitor.removeprefix("eval/")


def _each_state(state: State) -> Iterator[State]:
    """Yield the states of single rules, in order."""
    places = sorted((key for key in state if key.isdigit()), key=int)
    for place in places:
        yield from _each_state(state[place])
    if state and not places:
        yield state


def _joined(rule: Rule, states: Iterator[State]) -> State:
    if isinstance(rule, FirstOf):
        return rule.joined([_joined(one, states) for one in rule.rules])
    return next(states)


def _replayed(rule: Any, mode: Any, rows: Sequence[Row]) -> State | None:
    """Return the state of a rule after the evaluations so far; ``None`` without their log."""
    if mode is not None and hasattr(rule, "directed"):
        rule = rule.directed({rule.monitor: mode, f"eval/{rule.monitor}": mode})
    state = rule.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingMetricWarning)
        for row in rows:
            state = rule.observe(state, row)
    return state if rows else None


def _going(state: State) -> State:
    return {**state, "stop": None}
