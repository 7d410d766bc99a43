"""Rules that rank the members of a population: ``Halving`` and ``PopulationBasedTraining``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from functrain.core.rng import derive
from functrain.core.schedule import Mode
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import Validator, integer, number, one_of, optional
from functrain.metrics.mode import resolved_mode
from functrain.training.early_stopping.rule import Directed, State, awaited


def _are_bounds(bounds: Any) -> bool:
    return isinstance(bounds, Mapping) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(end, int | float) and math.isfinite(end) for end in pair)
        and pair[0] <= pair[1]
        for pair in bounds.values()
    )


def _are_factors(factors: Any) -> bool:
    positive = number(above=0).accepts
    return isinstance(factors, list | tuple) and bool(factors) and all(map(positive, factors))


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
    keep: float = attrs.field(default=0.5, validator=number(above=0, below=1))
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
        ranked = _finite_first(
            values, running, resolved_mode(self.monitor, self.mode, where="Halving")
        )
        count = max(self.least, math.ceil(len(ranked) * self.keep))
        return state, {
            member: f"{self.monitor} is {values[member]:.4g}, rank {rank} of {len(ranked)}"
            for rank, member in sorted(enumerate(ranked, 1), key=lambda pair: pair[1])
            if rank > count
        }


@explained
@attrs.frozen
class PopulationBasedTraining(Directed):
    """Let the worse members of a population go on from better ones; a rule of ``early_stop``.

    At intervals each of the worse members takes over weights, moments and hyperparameters of one of
    the better members, and multiplies hyperparameters by a random factor (Jaderberg et al., 2017,
    "Population based training of neural networks", with truncation selection). All draws follow
    from ``seed``, the step and the member, so a resumed run makes the same ones.

    Each replacement is an event, ``on_member_replaced``. The log has, at its step, the ``parent``
    that each member goes on from.

    Attributes:
        bounds: by path, the lowest and the highest value of each hyperparameter that is changed.
            They must be numbers of each member of the population.
        monitor: metric of an evaluation.
        every: how many evaluations lie between two exchanges.
        share: of the running members that is replaced, and of those that they are replaced by.
        factors: one is drawn for each hyperparameter.
        seed: of the draws.
        mode: whether less (``"min"``) or more (``"max"``) is better; by default as in
            ``EarlyStop``.

    Example:
        >>> import functrain as ft, torch
        >>> from functrain.training.early_stopping import PopulationBasedTraining
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(lambda: torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> pop = ft.population(program, {"lr": [1e-6, 0.1, 0.2, 0.3]}, seeds=0)
        >>> rule, data = PopulationBasedTraining({"lr": (1e-6, 1.0)}), [torch.ones(4, 2)]
        >>> run = ft.fit(pop, data, until="2 epochs", eval_data=data, early_stop=rule)
        >>> run.history["parent"][0]
        [2, 1, 2, 3]
    """

    bounds: Mapping[str, Sequence[float]] = attrs.field(
        validator=Validator(_are_bounds, "a mapping such as {'lr': (1e-4, 0.1)}")
    )
    monitor: str = attrs.field(default="loss", kw_only=True)
    every: int = attrs.field(default=1, validator=integer(minimum=1), kw_only=True)
    share: float = attrs.field(default=0.25, validator=number(above=0, maximum=0.5), kw_only=True)
    factors: Sequence[float] = attrs.field(
        default=(0.8, 1.2),
        validator=Validator(_are_factors, "numbers above 0, such as (0.8, 1.2)"),
        kw_only=True,
    )
    seed: int = attrs.field(default=0, validator=integer(minimum=0), kw_only=True)
    mode: Mode | None = attrs.field(default=None, validator=optional(one_of(Mode)), kw_only=True)

    def init(self) -> State:
        """Return the state before the first evaluation."""
        return {"evaluations": 0, "stop": None, "lineage": []}

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """Refuse a run of one program, which has no members.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "PopulationBasedTraining replaces members of a population, got the metrics of one "
            "program. Train functrain.population(program, {...})"
        )

    def check(self, population: Any) -> None:
        """Refuse bounds that no member may have, before anything is trained.

        Args:
            population: to be trained.

        Raises:
            ConfigurationError: a path is no number of each member, or a bound is out of range.
        """
        for path, ends in self.bounds.items():
            for end in ends:
                population.check_value(path, float(end))

    def observe_state(
        self, state: State, metrics: Mapping[str, Any], population: Any, train: TrainState
    ) -> tuple[State, TrainState]:
        """Return the state of the rule and that of the population after an evaluation.

        Args:
            state: from :meth:`init` or an earlier call; not changed.
            metrics: of the evaluation, each a list with a number of every member.
            population: the program.
            train: of all members; not changed.
        """
        values: Any = awaited(metrics, self.monitor)
        if values is None:
            return state, train
        state = {**state, "evaluations": state["evaluations"] + 1}
        running = population.running(train)
        if state["evaluations"] % self.every or len(running) < 2:
            return state, train
        count = max(1, int(len(running) * self.share))
        mode = resolved_mode(self.monitor, self.mode, where="PopulationBasedTraining")
        ranked = _finite_first(values, running, mode)
        better = [member for member in ranked[:count] if math.isfinite(values[member])]
        now, lineage = population.current(train).values, list(state["lineage"])
        for member in ranked[-count:] if better else ():
            step = train.counters.step
            by = better[derive(self.seed, "exploit", step, member) % len(better)]
            new = {path: self._explored(path, now[path][by], step, member) for path in self.bounds}
            train = population.replaced(train, member, by=by, **new)
            lineage.append({"step": step, "member": member, "by": by, "values": new})
        return {**state, "lineage": lineage}, train

    def _explored(self, path: str, value: float, step: int, member: int) -> float:
        low, high = self.bounds[path]
        drawn = derive(self.seed, "explore", step, member, path) % len(self.factors)
        return float(min(max(value * self.factors[drawn], low), high))


def _finite_first(values: Sequence[Any], members: Sequence[int], mode: Mode) -> list[int]:
    """Return members in order of their values, best first, those without a finite one last."""
    sign = 1 if mode == "min" else -1

    def place(member: int) -> tuple[bool, float, int]:
        value = values[member]
        finite = value is not None and math.isfinite(value)
        return not finite, sign * value if finite else 0.0, member

    return sorted(members, key=place)
