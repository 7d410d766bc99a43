"""What an evaluation decides: best, early stop and plateau, each a pure function of the past."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import attrs

from functrain.checkpoint.run_state import LoopState
from functrain.core import learning_rate
from functrain.core.program import Program
from functrain.core.schedule import Mode
from functrain.core.state import TrainState
from functrain.errors import MissingMetricWarning, RecipeChangedWarning, ScheduleStateError
from functrain.errors.warning import warn
from functrain.metrics.mode import mode_of_name, resolved_mode
from functrain.training.early_stopping.rule import Rule, best_after, directed, each_rule, find
from functrain.training.monitored import By, Monitored, check_possible
from functrain.training.plan import Evaluations


def warn_of_no_best(monitor: str) -> None:
    """Tell that the best state was asked for, and there is none."""
    warn(
        f"restore_best: no evaluation gave a finite {monitor!r}; the state is the last one",
        MissingMetricWarning,
    )


def watched(by: Any) -> dict[str, Any]:
    """``monitor`` and ``mode`` of a rule or a store; those of the loss where it has none."""
    return {"monitor": str(getattr(by, "monitor", "loss")), "mode": getattr(by, "mode", None)}


@attrs.frozen(eq=False)
class Decisions:
    """The rules of a run.

    Attributes:
        program: whose schedule may react to metrics.
        rule: of early stopping.
        monitor: the metric whose best value counts, and which the schedule is shown.
        mode: whether less or more of it is better; ``None`` while nothing has said it.
        keeps_best: whether a store was told to keep the best by a metric other than the loss.
        restores_best: whether the best state is given back.
    """

    program: Program
    rule: Rule | None
    monitor: str
    mode: Mode | None
    keeps_best: bool = False
    restores_best: bool = False

    @classmethod
    def of(
        cls, program: Program, rule: Rule | None, store: Any, restores_best: bool = False
    ) -> Decisions:
        """With the metric that the store watches, or the rule, or the loss."""
        by_rule = watched(rule)
        watching = by_rule if store is None else watched(store)
        # The loss is what a store watches that was not told; it may be missing without harm.
        told = watching["monitor"] not in ("loss", by_rule["monitor"])
        keeps_best = store is not None and store.keep_best > 0 and told
        return cls(program, rule, **watching, keeps_best=keeps_best, restores_best=restores_best)

    def monitored(self) -> list[Monitored]:
        """The metrics that the run goes by, each with what goes by it."""
        rules = each_rule(self.rule)
        waiting: dict[By, bool] = {
            "checkpoints": self.keeps_best,
            "schedule": learning_rate.observes_evaluations(self.program.schedules),
            "restore_best": self.restores_best,
        }
        return [
            *(Monitored("early_stop", getattr(rule, "monitor", None)) for rule in rules),
            *(Monitored("early_stop", r.training, True) for r in rules if hasattr(r, "training")),
            *(Monitored(by, self.monitor) for by, waits in waiting.items() if waits),
        ]

    def check(self, evaluations: Evaluations) -> None:
        """Refuse, before anything is trained, what could never be decided.

        Raises:
            MissingMetricError: the run goes by a metric that no evaluation can give.
            InvalidScheduleError: more of the metric is better, and the schedule cannot be told.
        """
        prefixes = evaluations.prefixes(self.program.recipe.ema is not None)
        check_possible(self.monitored(), prefixes)
        self.check_schedule()

    def check_schedule(self) -> None:
        """Refuse a schedule that cannot be told that more of the metric is better.

        Raises:
            InvalidScheduleError: there is one.
        """
        learning_rate.check_mode(self.program.schedules, self.mode or mode_of_name(self.monitor))

    # -- going on ----------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """What a checkpoint says it was decided by, as plain data."""
        rules = [watched(rule) for rule in each_rule(self.rule)]
        own = {"monitor": self.monitor, "mode": self.mode}
        return {**_named(own), "rules": [_named(rule) for rule in rules]}

    def initial(self) -> dict[str, Any]:
        """The state of the rule before the first evaluation."""
        return {} if self.rule is None else self.rule.init()

    def resumed(self, loop: LoopState, record: Mapping[str, Any] | None = None) -> LoopState:
        """Return a loop state that goes on; what went by another metric begins from scratch.

        Args:
            loop: the saved one.
            record: see :meth:`record`, of the run that saved it. Runs of versions without one took
                less for better where no mode was given.

        Raises:
            ScheduleStateError: the schedule's state is made of the values of another metric.
        """
        now = self.record()
        before = record if record is not None else self._without_record()
        if loop.best["value"] is not None and _differs(before, now):
            self._check_schedule_goes_on(before, now)
            _warn_of_change(f"the best so far ({loop.best['value']:.5g})", before, now)
            loop = attrs.evolve(loop, best={"value": None, "step": None})
        if self.rule is None:
            return loop
        begun = self.initial()
        if loop.early_stop.keys() != begun.keys():
            return attrs.evolve(loop, early_stop=begun)
        for old, new in zip(before.get("rules", []), now["rules"], strict=False):
            if _differs(old, new) and loop.early_stop != begun:
                _warn_of_change("early_stop", old, new)
                return attrs.evolve(loop, early_stop=begun)
        return loop

    def _without_record(self) -> dict[str, Any]:
        rules = [watched(rule) for rule in each_rule(self.rule)]
        plain = {"monitor": self.monitor, "mode": self.mode or "min"}
        return {**plain, "rules": [{**rule, "mode": rule["mode"] or "min"} for rule in rules]}

    def _check_schedule_goes_on(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        schedules = self.program.schedules
        another = _full(before["monitor"]) != _full(now["monitor"])
        if learning_rate.needs_mode(schedules) or (
            another and learning_rate.observes_evaluations(schedules)
        ):
            raise ScheduleStateError(
                f"the learning rate schedule went by {_shown(before)} so far, and would go by "
                f"{_shown(now)} now. Go on with the monitor and the mode of the run, or begin a "
                "new run from its weights: program.init(params=state.params)"
            )

    # -- deciding ----------------------------------------------------------------------------

    def directed(self, found: Mapping[str, float], directions: Mapping[str, Mode]) -> Decisions:
        """Return the rules with the modes that are known once their metrics are there.

        Args:
            found: metrics of an evaluation.
            directions: what metric objects say of themselves, by full name.

        Raises:
            ConfigurationError: nothing says whether less or more is better.
        """
        rule = None if self.rule is None else directed(self.rule, found, directions)
        mode = self.mode
        if find(found, self.monitor) is not None:
            mode = resolved_mode(self.monitor, mode, directions, "the best by the monitored metric")
        return attrs.evolve(self, rule=rule, mode=mode)

    def after(
        self, loop: LoopState, train: TrainState, found: Mapping[str, float], complete: bool
    ) -> tuple[LoopState, TrainState]:
        """The decisions after an evaluation.

        Args:
            loop: the decisions before; not changed.
            train: what was evaluated; its schedule may be shown the metric.
            found: metrics of the evaluation and, as ``epoch/...``, of an epoch that has ended.
            complete: whether all sets were evaluated. If not, a metric that is not there may be
                one of the others, and is waited for.

        Returns:
            (loop, train); ``loop.best`` is the same object where nothing improved.
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


def _named(watching: Mapping[str, Any]) -> dict[str, Any]:
    return {**watching, "mode": watching["mode"] or mode_of_name(str(watching["monitor"]))}


def _full(monitor: str) -> str:
    return monitor.removeprefix("eval/")


def _differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether values of the two cannot be compared; an unknown mode may be the same."""
    modes = {before.get("mode"), now["mode"]} - {None}
    return _full(str(before.get("monitor"))) != _full(now["monitor"]) or len(modes) > 1


def _shown(watching: Mapping[str, Any]) -> str:
    words = {"min": ", less is better", "max": ", more is better"}
    return f"{watching['monitor']!r}{words.get(watching['mode'], '')}"


def _warn_of_change(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    warn(
        f"{what} went by {_shown(before)}; the run goes on by {_shown(now)}, so this begins from "
        "scratch",
        RecipeChangedWarning,
    )
