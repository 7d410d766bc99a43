"""The protocol of an early-stopping rule, and several rules as one: pure reducers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, cast

import attrs

from functrain.core.schedule import Mode
from functrain.errors import ConfigurationError, MissingMetricWarning
from functrain.errors.base import warn
from functrain.metrics.mode import resolved_mode

State = dict[str, Any]


class Rule(Protocol):
    """A pure reducer over evaluations that decides when a run ends; its state is plain data.

    ``state["stop"]`` says why the run must end, or is ``None``. A rule with ``monitor`` is refused
    where no evaluation gives that metric. A rule with ``directed(directions)`` receives the modes
    that metric objects declare, ``{"eval/accuracy": "max"}``, and returns the rule to use.
    """

    def init(self) -> State:
        """Return the state before the first evaluation."""
        ...

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """Return the state after an evaluation."""
        ...


class Directed:
    """Gives a rule that monitors a metric the mode of that metric."""

    __slots__ = ()
    monitor: str
    mode: Mode | None

    def directed(self, directions: Mapping[str, Mode]) -> Self:
        """Return the rule with its mode.

        Args:
            directions: the modes that metric objects declare, by full name.

        Raises:
            ConfigurationError: nothing says whether less or more is better.
        """
        mode = resolved_mode(self.monitor, self.mode, directions, type(self).__name__)
        return cast(Self, attrs.evolve(cast(Any, self), mode=mode))


def improves(value: float, best: float | None, mode: Mode) -> bool:
    """Return whether a value is finite and strictly better than the best so far."""
    if not math.isfinite(value):
        return False
    return best is None or (value < best if mode == "min" else value > best)


def worse(value: float, bound: float, mode: Mode) -> bool:
    """Return whether a value is strictly worse than a bound."""
    return value > bound if mode == "min" else value < bound


def best_after(best: State, value: float | None, step: int, mode: Mode) -> State:
    """Return the best value and its step after an evaluation."""
    if value is None or not improves(value, best["value"], mode):
        return best
    return {"value": value, "step": step}


def find(metrics: Mapping[str, float], monitor: str) -> float | None:
    """Return the metric that a monitor names: in full, or as ``"loss"`` for ``"eval/loss"``."""
    return metrics.get(monitor, metrics.get(f"eval/{monitor}"))


def awaited(metrics: Mapping[str, float], monitor: str) -> float | None:
    """Return the metric that a rule monitors, or warn and name those that the evaluation gave."""
    value = find(metrics, monitor)
    if value is None:
        warn(
            f"early stopping waits for {monitor!r}, but the evaluation gave only {sorted(metrics)}",
            MissingMetricWarning,
        )
    return value


@attrs.frozen
class FirstOf:
    """Several rules; the first to stop ends the run.

    Example:
        >>> from functrain.training.early_stopping.rules import EarlyStop
        >>> rule = FirstOf((EarlyStop(patience=2), EarlyStop("accuracy", upper=0.9)))
        >>> rule.observe(rule.init(), {"eval/loss": 0.5, "eval/accuracy": 0.95})["stop"]
        'accuracy is 0.95, above the bound 0.9'
    """

    rules: tuple[Rule, ...] = attrs.field(converter=tuple)

    @property
    def monitor(self) -> str:
        """Return the monitor of the first rule."""
        return getattr(self.rules[0], "monitor", "loss") if self.rules else "loss"

    @property
    def mode(self) -> Mode | None:
        """Return the mode of the first rule."""
        return getattr(self.rules[0], "mode", None) if self.rules else None

    def init(self) -> State:
        """Return the state before the first evaluation."""
        return {"stop": None} | {str(at): rule.init() for at, rule in enumerate(self.rules)}

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """Return the state after an evaluation."""
        states = [rule.observe(state[str(at)], metrics) for at, rule in enumerate(self.rules)]
        return self.joined(states)

    def joined(self, states: Sequence[State]) -> State:
        """Return the states of the rules as one."""
        stop = next((one["stop"] for one in states if one["stop"]), None)
        return {"stop": stop} | {str(at): one for at, one in enumerate(states)}


def directed(rule: Rule, metrics: Mapping[str, float], directions: Mapping[str, Mode]) -> Rule:
    """Return a rule with its mode, once an evaluation gave its metric."""
    if isinstance(rule, FirstOf):
        rules: list[Any] = [directed(one, metrics, directions) for one in rule.rules]
        return FirstOf(tuple(rules))
    make = getattr(rule, "directed", None)
    if make is None or find(metrics, getattr(rule, "monitor", "")) is None:
        return rule
    return cast(Rule, make(directions))


def each_rule(rule: Rule | None) -> list[Any]:
    """Return the rules that a rule is made of, in order."""
    if isinstance(rule, FirstOf):
        return [one for own in rule.rules for one in each_rule(own)]
    return [] if rule is None else [rule]


def fits(rule: Rule | None, state: Mapping[str, Any]) -> bool:
    """Return whether a state can be one of this rule: it has the names that the rule's own has."""
    rules = rule.rules if isinstance(rule, FirstOf) else ()
    return state.keys() == (set() if rule is None else rule.init().keys()) and all(
        fits(one, state[str(at)]) for at, one in enumerate(rules)
    )


def as_rule(given: Rule | Sequence[Rule] | None) -> Rule | None:
    """Return one or several rules as one."""
    rules: list[Any] | tuple[Any, ...] = given if isinstance(given, list | tuple) else [given]
    for rule in rules if given is not None else ():
        if isinstance(rule, type) or not callable(getattr(rule, "observe", None)):
            raise ConfigurationError(
                "early_stop: expected a rule such as functrain.EarlyStop('eval/loss', patience=5), "
                f"or a list of them, got {rule!r}"
            )
    if rules is not given:
        return cast(Rule | None, given)
    return FirstOf(tuple(rules)) if rules else None
