"""Decisions after an evaluation: best, early stop and plateau, pure functions of the past."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from functrain.checkpoint.run_state import LoopState
from functrain.core.protocol import AnyProgram
from functrain.core.schedule import Mode
from functrain.core.state import TrainState
from functrain.errors import MissingMetricWarning, RecipeChangedWarning, ScheduleStateError
from functrain.errors.base import warn
from functrain.metrics.log_file import Row
from functrain.metrics.mode import mode_of_name, resolved_mode
from functrain.schedules import metric_modes
from functrain.training import events
from functrain.training.early_stopping import resumption
from functrain.training.early_stopping.rule import Rule, best_after, directed, each_rule, find
from functrain.training.monitored import By, Monitored, check_possible
from functrain.training.plan import Evaluations


def warn_of_no_best(monitor: str) -> None:
    """Warn that ``restore_best`` has no best state to return."""
    warn(
        f"restore_best: no evaluation gave a finite {monitor!r}; the state is the last one",
        MissingMetricWarning,
    )


def monitor_and_mode(by: Any) -> dict[str, Any]:
    """Return ``monitor`` and ``mode`` of a rule or a store, by default those of the loss."""
    return {"monitor": str(getattr(by, "monitor", "loss")), "mode": getattr(by, "mode", None)}


@attrs.frozen(eq=False)
class Decisions:
    """The rules by which a run decides.

    Attributes:
        monitor: the metric whose best value counts, and which the schedule observes.
        mode: whether less or more of it is better; ``None`` while this is not known.
        keeps_best: whether a store keeps the best by a metric that the user named.
        restores_best: whether ``fit`` returns the best state.
        kinds: what each of the rules is, as plain data.
    """

    program: AnyProgram
    rule: Rule | None
    monitor: str
    mode: Mode | None
    keeps_best: bool = False
    restores_best: bool = False
    kinds: Sequence[Mapping[str, Any]] = attrs.field()

    @kinds.default
    def _kinds(self) -> Sequence[Mapping[str, Any]]:
        # As they were given: the metrics of an evaluation add the modes.
        return [resumption.describe(rule) for rule in self.rules]

    @property
    def rules(self) -> list[Any]:
        """The single rules, in the order in which the records have them."""
        return each_rule(self.rule)

    @classmethod
    def of(
        cls, program: AnyProgram, rule: Rule | None, store: Any, restores_best: bool = False
    ) -> Decisions:
        """Make the rules for the metric that the store monitors, or the rule, or the loss."""
        by_rule = monitor_and_mode(rule)
        criterion = by_rule if store is None else monitor_and_mode(store)
        # A store monitors the loss by default, which may be missing without harm.
        named = criterion["monitor"] not in ("loss", by_rule["monitor"])
        keeps_best = store is not None and store.keep_best > 0 and named
        return cls(program, rule, **criterion, keeps_best=keeps_best, restores_best=restores_best)

    def monitored(self) -> list[Monitored]:
        """Return the metrics that the run depends on, each with the part that depends on it."""
        rules = each_rule(self.rule)
        waiting: dict[By, bool] = {
            "checkpoints": self.keeps_best,
            "schedule": metric_modes.observes_evaluations(self.program.schedules),
            "restore_best": self.restores_best,
        }
        return [
            *(Monitored("early_stop", getattr(rule, "monitor", None)) for rule in rules),
            *(Monitored("early_stop", r.training, True) for r in rules if hasattr(r, "training")),
            *(Monitored(by, self.monitor) for by, waits in waiting.items() if waits),
        ]

    def check(self, evaluations: Evaluations) -> None:
        """Refuse rules that could never decide, before anything is trained."""
        self._check_rules()
        prefixes = evaluations.prefixes(self.program.recipe.ema is not None)
        check_possible(self.monitored(), prefixes)
        self.check_schedule()

    def _check_rules(self) -> None:
        for rule in each_rule(self.rule):
            if hasattr(rule, "observe_members") or hasattr(rule, "observe_state"):
                rule.observe({}, {})  # which says that it takes a population

    def check_schedule(self) -> None:
        """Refuse a schedule that takes less for better where more of the metric is better."""
        metric_modes.check_mode(self.program.schedules, self.mode or mode_of_name(self.monitor))

    # -- resuming ----------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """Return the record that checkpoints keep of the rules, as plain data."""
        return self._recorded(mode_of_name)

    def _recorded(self, unknown: Callable[[str], Mode | None]) -> dict[str, Any]:
        """Return the record, with a function for the mode of a metric where none was given."""

        def full(criterion: Mapping[str, Any]) -> dict[str, Any]:
            return {**criterion, "mode": criterion["mode"] or unknown(criterion["monitor"])}

        each = zip(self.rules, self.kinds, strict=True)
        rules = [{**full(monitor_and_mode(rule)), "rule": kind} for rule, kind in each]
        return {**full({"monitor": self.monitor, "mode": self.mode}), "rules": rules}

    def initial(self) -> dict[str, Any]:
        """Return the state of the rule before the first evaluation."""
        return {} if self.rule is None else self.rule.init()

    def resumed(
        self,
        loop: LoopState,
        record: Mapping[str, Any] | None = None,
        rows: Callable[[], Sequence[Row]] = list,
    ) -> LoopState:
        """Return a loaded loop state for these rules; decisions by another metric are reset.

        Checkpoints without a ``record`` are of versions that took less for better where no mode was
        given. ``rows`` returns the metrics of each evaluation so far.
        """
        now = self.record()
        before = record if record is not None else self._recorded(lambda _: "min")
        if loop.best["value"] is not None and not resumption.same_metric(now, before):
            self._check_schedule_resumes(before, now)
            _warn_of_change(f"the best so far ({shown(loop.best['value'])})", before, now)
            loop = attrs.evolve(loop, best={"value": None, "step": None})
        state = self._resumed_rules(loop.early_stop, now["rules"], before.get("rules", []), rows)
        if state == loop.early_stop:
            return loop
        self._warn_of_other_metrics(loop, now["rules"], before.get("rules", []))
        return attrs.evolve(loop, early_stop=state)

    def _resumed_rules(
        self,
        saved: dict[str, Any],
        now: list[Any],
        before: list[Any],
        rows: Callable[[], Sequence[Row]],
    ) -> dict[str, Any]:
        if self.rule is None:
            return {}
        return resumption.resumed(self.rule, now, before, saved, rows)

    def _warn_of_other_metrics(self, loop: LoopState, now: list[Any], before: list[Any]) -> None:
        """Warn of each rule that used another metric, or the other direction of it."""
        found = resumption.match(now, before)
        new = [record for record, at in zip(now, found, strict=True) if at is None]
        for old in (record for at, record in enumerate(before) if at not in found):
            own = [
                one for one in new if one["rule"]["type"] == old.get("rule", one["rule"])["type"]
            ]
            if own:
                new.remove(own[0])
                _warn_of_change("early_stop", old, own[0])

    def _check_schedule_resumes(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        schedules = self.program.schedules
        monitors = {resumption.full_name(each["monitor"]) for each in (before, now)}
        another = len(monitors) > 1
        if metric_modes.needs_mode(schedules) or (
            another and metric_modes.observes_evaluations(schedules)
        ):
            raise ScheduleStateError(
                f"the learning rate schedule used {_shown(before)} so far, and would use "
                f"{_shown(now)} now. Resume with the monitor and the mode of the run, or begin a "
                "new run from its weights: program.init(params=state.params)"
            )

    def best_state(self, loop: LoopState, train: TrainState) -> TrainState | None:
        """Return the best state that the decisions hold; ``None`` where a checkpoint holds it."""
        return None

    def saved_metrics(self, found: Mapping[str, Any]) -> Mapping[str, float]:
        """Return the metrics that a checkpoint is recorded with."""
        return found

    def events(
        self, before: LoopState, after: LoopState, train: TrainState
    ) -> tuple[list[events.Event], dict[str, Any]]:
        """Return what a decision has changed besides, and what the row of its step adds of it."""
        return [], {}

    # -- deciding ----------------------------------------------------------------------------

    def directed(self, found: Mapping[str, float], directions: Mapping[str, Mode]) -> Decisions:
        """Return the rules with the modes that follow from the metrics of an evaluation."""
        rule = None if self.rule is None else directed(self.rule, found, directions)
        mode = self.mode
        if find(found, self.monitor) is not None:
            mode = resolved_mode(self.monitor, mode, directions, "the best by the monitored metric")
        return attrs.evolve(self, rule=rule, mode=mode)

    def after(
        self, loop: LoopState, train: TrainState, found: Mapping[str, float], complete: bool
    ) -> tuple[LoopState, TrainState]:
        """Decide after an evaluation.

        ``found`` has metrics of the evaluation and, as ``epoch/...``, of an epoch that has ended.
        Unless it is ``complete``, a missing metric may still come from another set. ``loop.best``
        is the same object where nothing improved.
        """
        value = find(found, self.monitor)
        best, stopping = loop.best, loop.early_stop
        with warnings.catch_warnings():
            if not complete:
                warnings.simplefilter("ignore", MissingMetricWarning)
            if value is not None:
                mode = resolved_mode(self.monitor, self.mode)
                best = best_after(best, value, train.counters.step, mode)
                train = self.program.observe(train, value, mode)
            elif complete:
                train = self.program.observe(train, None)
            if self.rule is not None:
                stopping = self.rule.observe(stopping, found)
        return attrs.evolve(loop, best=best, early_stop=stopping), train


def shown(best: Any) -> str:
    """Return the best value in words, or those of all members."""
    return ", ".join(map(shown, best)) if isinstance(best, list | tuple) else f"{best:.5g}"


def _shown(criterion: Mapping[str, Any]) -> str:
    words = {"min": ", less is better", "max": ", more is better"}
    return f"{criterion['monitor']!r}{words.get(criterion['mode'], '')}"


def _warn_of_change(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    warn(
        f"{what} used {_shown(before)}; the run now uses {_shown(now)}, so this begins from "
        "scratch",
        RecipeChangedWarning,
    )
