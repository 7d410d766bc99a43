"""Decisions about a population after an evaluation: best, early stop and plateau of each member."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import attrs

from functrain.checkpoint.run_state import LoopState
from functrain.core.schedule import Mode
from functrain.core.state import TrainState
from functrain.errors import MissingMetricWarning, RecipeChangedWarning
from functrain.errors.base import warn
from functrain.metrics.by_member import best_member, of_member
from functrain.metrics.log_file import Row
from functrain.metrics.mode import resolved_mode
from functrain.populations.states import at_one_place
from functrain.populations.stopping import with_members_of
from functrain.training import events
from functrain.training.decisions import Decisions, shown
from functrain.training.early_stopping.resumption import is_same, match, resumed
from functrain.training.early_stopping.rule import FirstOf, Rule, best_after, each_rule, find, fits

_TOGETHER = ("observe_members", "observe_state")
"""A rule with one of these methods is shown the metrics of all members together."""

Found = Mapping[str, Any]
"""Metrics by name, each a list with a number of every member, ``None`` where it has none."""


@attrs.frozen(eq=False)
class MemberDecisions(Decisions):
    """The rules of a run of a population, which decide about each member by its own metrics.

    ``loop.best`` has lists of values and steps, the best ``member`` and, where ``fit`` returns
    the best state, the ``state`` in which each member is at its best. ``loop.early_stop`` has the
    state of the rule for each member, and ``stop`` once all have stopped.
    """

    @property
    def population(self) -> Any:
        """The program, which is a population."""
        return self.program

    def initial(self) -> dict[str, Any]:
        """Return the state of the rule before the first evaluation."""
        if self.rule is None:
            return {}
        alone, together = self._rules
        each = {str(member): alone.init() for member in range(len(self.population))}
        ranking = {"together": [rule.init() for rule in together]} if together else {}
        return {"stop": None, "members": each, **ranking}

    @property
    def _rules(self) -> tuple[Rule, list[Any]]:
        """The rule that is shown the metrics of one member, and those that are shown all."""
        each = each_rule(self.rule)
        together = [rule for rule in each if any(hasattr(rule, name) for name in _TOGETHER)]
        alone = [rule for rule in each if rule not in together]
        if self.rule is not None and not together:
            return self.rule, []
        return FirstOf(tuple(alone)), together

    def _check_rules(self) -> None:
        """Take rules that rank members or change the population, too."""
        for rule in each_rule(self.rule):
            if hasattr(rule, "observe_state"):
                rule.check(self.population)

    @property
    def rules(self) -> list[Any]:
        """The single rules: those that look at one member, then those that are shown all."""
        alone, together = self._rules
        return [*each_rule(alone), *together]

    def resumed(
        self,
        loop: LoopState,
        record: Mapping[str, Any] | None = None,
        rows: Callable[[], Sequence[Row]] = list,
    ) -> LoopState:
        """Return a loaded loop state for these rules; see :meth:`Decisions.resumed`."""
        loop = super().resumed(loop, record, rows)
        if self.restores_best and loop.best["value"] is not None and "state" not in loop.best:
            warn(
                "restore_best: the run was begun without it, so the checkpoint has no best states "
                f"of members. Their best so far ({shown(loop.best['value'])}) begins from scratch",
                RecipeChangedWarning,
            )
            return attrs.evolve(loop, best={"value": None, "step": None})
        return loop

    def _resumed_rules(
        self,
        saved: dict[str, Any],
        now: list[Any],
        before: list[Any],
        rows: Callable[[], Sequence[Row]],
    ) -> dict[str, Any]:
        """Return the states of the rules; a member that has stopped keeps its state."""
        initial, (alone, together) = self.initial(), self._rules
        if (
            saved.keys() == initial.keys()
            and len(now) == len(before)
            and all(map(is_same, now, before))
        ):
            return saved
        if not initial or "members" not in saved:
            return initial
        ranking = saved.get("together", [])
        cut, end = len(now) - len(together), len(before) - len(ranking)
        each = {
            member: state
            if state["stop"]
            else resumed(alone, now[:cut], before[:end], state, _rows_of(rows, int(member)))
            for member, state in saved["members"].items()
        }
        places = match(now[cut:], before[end:])
        both = [
            one.init() if at is None or not fits(one, ranking[at]) else ranking[at]
            for one, at in zip(together, places, strict=True)
        ]
        return {**initial, "members": each, **({"together": both} if together else {})}

    def after(
        self, loop: LoopState, train: TrainState, found: Found, complete: bool
    ) -> tuple[LoopState, TrainState]:
        """Decide after an evaluation; see :meth:`Decisions.after`."""
        best, stopping, values = loop.best, loop.early_stop, _find(found, self.monitor)
        evaluated = train
        with warnings.catch_warnings():
            if not complete:
                warnings.simplefilter("ignore", MissingMetricWarning)
            if values is not None:
                mode = resolved_mode(self.monitor, self.mode)
                train = self.population.observe(train, values, mode)
                best = self._best_after(best, values, train, mode)
            elif complete:
                train = self.population.observe(train, None)
            if self.rule is not None:
                stopping, train = self._stopping_after(stopping, evaluated, train, found)
        return attrs.evolve(loop, best=best, early_stop=stopping), train

    def best_state(self, loop: LoopState, train: TrainState) -> TrainState | None:
        """Return the state in which each member is at its best, or its last without one.

        Members at different steps have stopped there; those at the same step can go on.
        """
        held = loop.best.get("state")
        if held is None:
            return None
        without = [member for member, step in enumerate(loop.best["step"]) if step is None]
        return at_one_place(with_members_of(held, train, without) if without else held)

    def saved_metrics(self, found: Found) -> Mapping[str, float]:
        """Return the metrics of the best member of an evaluation."""
        values = _find(found, self.monitor)
        if values is None:
            return {}
        member = best_member(values, resolved_mode(self.monitor, self.mode))
        return {} if member is None else of_member(found, member)

    def events(
        self, before: LoopState, after: LoopState, train: TrainState
    ) -> tuple[list[events.Event], dict[str, Any]]:
        """Return the members that a decision has stopped or replaced, and the parent of each."""
        old, new = (one.early_stop.get("members", {}) for one in (before, after))
        stopped = [
            events.MemberStopped(train, int(member), state["stop"])
            for member, state in new.items()
            if state["stop"] and not old[member]["stop"]
        ]
        replaced = _replacements(before, after)
        by = {one["member"]: one["by"] for one in replaced}
        parents = [by.get(member, member) for member in range(len(self.population))]
        exchanged = [
            events.MemberReplaced(train, one["member"], one["by"], one["values"])
            for one in replaced
        ]
        return [*stopped, *exchanged], {"parent": parents} if by else {}

    def _best_after(
        self, best: dict[str, Any], values: list[float | None], train: TrainState, mode: Mode
    ) -> dict[str, Any]:
        """Return the best of each member; the same object where none has improved."""
        step, members = train.counters.step, range(len(self.population))
        before = [_best_of(best, member) for member in members]
        after = [best_after(before[m], values[m], step, mode) for m in members]
        improved = [member for member in members if after[member] is not before[member]]
        if not improved:
            return best
        columns: dict[str, Any] = {n: [one[n] for one in after] for n in ("value", "step")}
        state = best.get("state") if self.restores_best else None
        if self.restores_best:
            held = with_members_of(train, train, members) if state is None else state
            columns["state"] = with_members_of(held, train, improved)
        return {**columns, "member": best_member(columns["value"], mode)}

    def _stopping_after(
        self, stopping: dict[str, Any], evaluated: TrainState, train: TrainState, found: Found
    ) -> tuple[dict[str, Any], TrainState]:
        """Show the rule the metrics of each member that is running, and stop those it ends."""
        alone, together = self._rules
        each, running = dict(stopping["members"]), self.population.running(evaluated)
        for member in running:
            each[str(member)] = alone.observe(each[str(member)], of_member(found, member))
        running = [member for member in running if not each[str(member)]["stop"]]
        ranking = []
        pairs = list(zip(together, stopping.get("together", []), strict=True))
        for rule, state in pairs:
            after, stops = state, {}
            if hasattr(rule, "observe_members"):
                after, stops = rule.observe_members(state, found, running)
            ranking.append(after)
            for member, why in stops.items():
                each[str(member)] = {**each[str(member)], "stop": why}
            running = [member for member in running if member not in stops]
        ended = [int(member) for member, state in each.items() if state["stop"]]
        train = self.population.stopped(train, ended)
        for at, (rule, state) in enumerate(pairs):
            if hasattr(rule, "observe_state"):
                ranking[at], train = rule.observe_state(state, found, self.population, train)
        stop = None
        if not self.population.running(train):
            last = ended[-1]
            stop = f"all {len(each)} members have stopped; member {last}: {each[str(last)]['stop']}"
        new = {"stop": stop, "members": each}
        return ({**new, "together": ranking} if together else new), train


def _replacements(before: LoopState, after: LoopState) -> list[dict[str, Any]]:
    """Return the replacements of members by a decision, as the rules record them."""
    old, new = (one.early_stop.get("together", []) for one in (before, after))
    return [
        one
        for was, now in zip(old, new, strict=True)
        for one in now.get("lineage", [])[len(was.get("lineage", [])) :]
    ]


def _rows_of(rows: Callable[[], Sequence[Row]], member: int) -> Callable[[], Sequence[Row]]:
    return lambda: [of_member(row, member) for row in rows()]


def _find(found: Found, monitor: str) -> list[float | None] | None:
    return cast(list[float | None] | None, find(found, monitor))


def _best_of(best: dict[str, Any], member: int) -> dict[str, Any]:
    if best["value"] is None:
        return {"value": None, "step": None}
    return {"value": best["value"][member], "step": best["step"][member]}
