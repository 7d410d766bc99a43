"""``Halving``: the worse members of a population leave at intervals (successive halving)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from functrain.core.schedule import Mode
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import Validator, integer, one_of, optional
from functrain.metrics.mode import resolved_mode
from functrain.training.early_stopping.rule import Directed, State, awaited


def _is_share(keep: Any) -> bool:
    return isinstance(keep, int | float) and 0 < keep < 1


@explained
@attrs.frozen
class Halving(Directed):
    """Stop the worse half of a population at intervals; a rule of ``early_stop``.

    This is successive halving (Jamieson and Talwalkar, 2016, "Non-stochastic best arm
    identification and hyperparameter optimization"), with evaluations as the unit of its budget.

    Attributes:
        monitor: metric of an evaluation.
        every: how many evaluations lie between two halvings.
        keep: the share of the members that are running which goes on, rounded up.
        least: so many members go on to the end.
        mode: whether less (``"min"``) or more (``"max"``) is better; by default as in
            ``EarlyStop``.

    Example:
        >>> rule, found = Halving("loss"), {"eval/loss": [0.5, 0.2, float("nan"), 0.4]}
        >>> _, stops = rule.observe_members(rule.init(), found, running=[0, 1, 2, 3])
        >>> stops
        {0: 'loss is 0.5, rank 3 of 4', 2: 'loss is nan, rank 4 of 4'}
    """

    monitor: str = "loss"
    every: int = attrs.field(default=1, validator=integer(minimum=1))
    keep: float = attrs.field(
        default=0.5, validator=Validator(_is_share, "a number above 0 and below 1")
    )
    least: int = attrs.field(default=1, validator=integer(minimum=1))
    mode: Mode | None = attrs.field(default=None, validator=optional(one_of(Mode)))

    def init(self) -> State:
        """Return the state before the first evaluation."""
        return {"evaluations": 0, "stop": None}

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """Refuse a run of one program, which has nothing to rank.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "Halving ranks the members of a population, got the metrics of one program. Train "
            "functrain.population(program, {...}), or take EarlyStop"
        )

    def observe_members(
        self, state: State, metrics: Mapping[str, Any], running: Sequence[int]
    ) -> tuple[State, dict[int, str]]:
        """Return the state after an evaluation, and why members stop.

        Args:
            state: from :meth:`init` or an earlier call; not changed.
            metrics: of the evaluation, each a list with a number of every member.
            running: the members that have not stopped.
        """
        values: Any = awaited(metrics, self.monitor)
        if values is None:
            return state, {}
        state = {**state, "evaluations": state["evaluations"] + 1}
        if state["evaluations"] % self.every:
            return state, {}
        ranked = finite_first(
            values, running, resolved_mode(self.monitor, self.mode, where="Halving")
        )
        count = max(self.least, math.ceil(len(ranked) * self.keep))
        return state, {
            member: f"{self.monitor} is {values[member]:.4g}, rank {rank} of {len(ranked)}"
            for rank, member in sorted(enumerate(ranked, 1), key=lambda pair: pair[1])
            if rank > count
        }


def finite_first(values: Sequence[Any], members: Sequence[int], mode: Mode) -> list[int]:
    """Return members in order of their values, best first, those without a finite one last."""
    sign = 1 if mode == "min" else -1

    def place(member: int) -> tuple[bool, float, int]:
        value = values[member]
        finite = value is not None and math.isfinite(value)
        return not finite, sign * value if finite else 0.0, member

    return sorted(members, key=place)
