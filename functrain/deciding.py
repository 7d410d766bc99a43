"""What an evaluation decides: best, early stop and plateau, each a pure function of the past."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import attrs

from functrain import learning_rate
from functrain.early_stopping import Rule, best_after, find
from functrain.errors import MissingMetricWarning
from functrain.program import Program
from functrain.run_state import LoopState
from functrain.state import TrainState
from functrain.warning import warn


def warn_of_no_best(monitor: str) -> None:
    """Tell that the best state was asked for, and there is none."""
    warn(
        f"restore_best: no evaluation gave a finite {monitor!r}; the state is the last one",
        MissingMetricWarning,
    )


def _warn_of_unknown_best(monitor: str, found: Mapping[str, float]) -> None:
    warn(
        f"the best checkpoint is to be told by {monitor!r}, but the evaluation gave only "
        f"{sorted(found)}",
        MissingMetricWarning,
    )


def watched(by: Any) -> dict[str, Any]:
    """``monitor`` and ``mode`` of a rule or a store; those of the loss where it has none."""
    return {"monitor": getattr(by, "monitor", "loss"), "mode": getattr(by, "mode", "min")}


@attrs.frozen(eq=False)
class Deciding:
    """The rules of a run.

    Attributes:
        program: whose schedule may react to metrics.
        rule: of early stopping.
        monitor: the metric whose best value counts, and which the schedule is shown.
        mode: whether less or more of it is better.
        keeps_best: whether a store was told to keep the best by a metric other than the loss.
    """

    program: Program
    rule: Rule | None
    monitor: str
    mode: str
    keeps_best: bool = False

    @classmethod
    def of(cls, program: Program, rule: Rule | None, store: Any) -> Deciding:
        """With the metric that the store watches, or the rule, or the loss."""
        by_rule = watched(rule)
        watching = by_rule if store is None else watched(store)
        # The loss is what a store watches that was not told; it may be missing without harm. Of
        # what the rule waits for, the rule tells.
        told = watching["monitor"] not in ("loss", by_rule["monitor"])
        keeps_best = store is not None and store.keep_best > 0 and told
        return cls(program, rule, **watching, keeps_best=keeps_best)

    def warn_without_evaluations(self) -> None:
        """Tell what waits in vain in a run that evaluates nothing."""
        waiting = {
            "early_stop": self.rule is not None,
            f"the best checkpoint by {self.monitor!r}": self.keeps_best,
            "the learning rate schedule": learning_rate.waits_for_evaluations(
                self.program.schedules
            ),
        }
        in_vain = [what for what, waits in waiting.items() if waits]
        if in_vain:
            warn(
                f"without eval_data nothing is evaluated, so what waits for evaluations never "
                f"acts: {', '.join(in_vain)}. Give fit eval_data=",
                MissingMetricWarning,
            )

    def begun(self) -> dict[str, Any]:
        """The state of the rule before the first evaluation."""
        return {} if self.rule is None else self.rule.init()

    def taken_up(self, loop: LoopState) -> LoopState:
        """A loop state that goes on; a rule that is not the one it has begins anew."""
        begun = self.begun()
        if self.rule is None or loop.early_stop.keys() == begun.keys():
            return loop
        return attrs.evolve(loop, early_stop=begun)

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
        best = best_after(loop.best, value, train.counters.step, self.mode)
        stopping = loop.early_stop
        if complete and value is None and self.keeps_best:
            _warn_of_unknown_best(self.monitor, found)
        with warnings.catch_warnings():
            if not complete:
                warnings.simplefilter("ignore", MissingMetricWarning)
            if self.rule is not None:
                stopping = self.rule.observe(stopping, found)
            if value is not None or complete:
                train = self.program.observe(train, value)
        return attrs.evolve(loop, best=best, early_stop=stopping), train
