"""The early-stopping rules: ``EarlyStop``, ``Overfit`` and ``PredictedStop``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from functrain.core.schedule import Mode
from functrain.errors.calls import explained
from functrain.errors.validators import number, one_of, optional
from functrain.metrics.mode import mode_of_name, resolved_mode
from functrain.training.early_stopping.prediction import LEAST_POINTS, Prediction, predict_final
from functrain.training.early_stopping.rule import Directed, State, awaited, find, improves, worse


@explained
@attrs.frozen
class EarlyStop(Directed):
    """End a run when a metric no longer improves.

    Attributes:
        monitor: metric of an evaluation, such as ``"loss"`` or ``"eval/ema/accuracy"``.
        patience: the run ends at this many evaluations in a row without improvement.
        mode: whether less (``"min"``) or more (``"max"``) is better. By default what the metric
            says (``higher_is_better``), or what a well-known name implies (accuracy, loss); of any
            other metric it must be given.
        min_delta: an improvement must exceed this.
        relative: ``min_delta`` is a share of the absolute best value.
        lower: a value below this ends the run at once.
        upper: a value above this ends the run at once (``nan`` counts as above).

    Example:
        >>> rule, state = EarlyStop("loss", patience=2), EarlyStop("loss").init()
        >>> for value in (1.0, 0.5, 0.5, 0.6):
        ...     state = rule.observe(state, {"eval/loss": value})
        >>> state["stop"]
        'loss has not improved on 0.5 in 2 evaluations'
    """

    monitor: str = "loss"
    patience: int = attrs.field(default=5, validator=number(minimum=1, finite=False))
    mode: Mode | None = attrs.field(default=None, validator=optional(one_of(Mode)))
    min_delta: float = attrs.field(default=0.0, validator=number(minimum=0, finite=False))
    relative: bool = False
    lower: float | None = None
    upper: float | None = None

    def init(self) -> State:
        """Return the state before the first evaluation."""
        return {"best": None, "misses": 0, "stop": None}

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """Return the state after an evaluation.

        Args:
            state: from :meth:`init` or an earlier call; not changed.
            metrics: of the evaluation. Without the monitored metric nothing changes, and a
                :class:`MissingMetricWarning` names the others.

        Returns:
            The new state; ``stop`` says why the run must end, or is ``None``.

        Raises:
            ConfigurationError: nothing says whether less or more is better.
        """
        value = awaited(metrics, self.monitor)
        if value is None:
            return state
        mode = resolved_mode(self.monitor, self.mode, where="EarlyStop")
        if outside := self._outside(value):
            return {**state, "stop": outside}
        if self._improved(value, state["best"], mode):
            return {"best": value, "misses": 0, "stop": None}
        misses = state["misses"] + 1
        stop = None
        if misses >= self.patience:
            best = state["best"]
            stop = f"{self.monitor} has not improved on {best} in {misses} evaluations"
        return {**state, "misses": misses, "stop": stop}

    def _improved(self, value: float, best: float | None, mode: Mode) -> bool:
        if best is None:
            return improves(value, None, mode)
        margin = self.min_delta * abs(best) if self.relative else self.min_delta
        return improves(value, best - margin if mode == "min" else best + margin, mode)

    def _outside(self, value: float) -> str | None:
        if self.lower is not None and value < self.lower:
            return f"{self.monitor} is {value}, below the bound {self.lower}"
        if self.upper is not None and not value <= self.upper:
            return f"{self.monitor} is {value}, above the bound {self.upper}"
        return None


@explained
@attrs.frozen
class Overfit(Directed):
    """End a run when an evaluation gets worse while training gets better; a rule of ``early_stop``.

    It looks at the evaluations at the end of an epoch, where the mean over the epoch is known.

    Attributes:
        monitor: metric of an evaluation.
        training: the same of training, as the log names it.
        patience: the run ends at this many such evaluations in a row.
        mode: whether less (``"min"``) or more (``"max"``) is better; by default as in
            ``EarlyStop``.
        training_mode: the same of ``training``. By default ``mode`` where both have one name, else
            what its name implies, else ``mode``.

    Example:
        >>> rule = Overfit(patience=2)
        >>> state = rule.init()
        >>> for trained, evaluated in ((1.0, 1.0), (0.8, 1.1), (0.6, 1.2)):
        ...     state = rule.observe(state, {"epoch/loss": trained, "eval/loss": evaluated})
        >>> state["stop"]
        'loss got worse while epoch/loss got better, 2 times in a row'
    """

    monitor: str = "loss"
    training: str = "epoch/loss"
    patience: int = attrs.field(default=3, validator=number(minimum=1, finite=False))
    mode: Mode | None = attrs.field(default=None, validator=optional(one_of(Mode)))
    training_mode: Mode | None = attrs.field(default=None, validator=optional(one_of(Mode)))

    def init(self) -> State:
        """Return the state before the first evaluation."""
        return {"evaluated": None, "trained": None, "misses": 0, "stop": None}

    def directed(self, directions: Mapping[str, Mode]) -> Overfit:
        """Return the rule with its modes; see :meth:`EarlyStop.directed`."""
        mode = resolved_mode(self.monitor, self.mode, directions, "Overfit")
        return attrs.evolve(self, mode=mode, training_mode=self._training_mode(mode))

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """Return the state after an evaluation; unchanged where one of the two is missing.

        Args:
            state: from :meth:`init` or an earlier call; not changed.
            metrics: of the evaluation and, as ``epoch/...``, of the epoch that has ended.

        Raises:
            ConfigurationError: nothing says whether less or more is better.
        """
        evaluated, trained = find(metrics, self.monitor), metrics.get(self.training)
        if evaluated is None or trained is None:
            return state
        mode = resolved_mode(self.monitor, self.mode, where="Overfit")
        worse = _better(state["evaluated"], evaluated, mode)
        better = _better(trained, state["trained"], self._training_mode(mode))
        misses = state["misses"] + 1 if worse and better else 0
        stop = None
        if misses >= self.patience:
            stop = (
                f"{self.monitor} got worse while {self.training} got better, {misses} times in "
                "a row"
            )
        return {"evaluated": evaluated, "trained": trained, "misses": misses, "stop": stop}

    def _training_mode(self, mode: Mode) -> Mode:
        same = self.monitor.rpartition("/")[2] == self.training.rpartition("/")[2]
        return self.training_mode or (mode if same else mode_of_name(self.training) or mode)


def _better(value: Any, other: Any, mode: Mode) -> bool:
    return value is not None and other is not None and improves(value, other, mode)


@explained
@attrs.frozen(kw_only=True)
class PredictedStop(Directed):
    """End a run whose predicted final value is worse than a bound; a rule like ``EarlyStop``.

    Evaluations are the unit of time, so they should be evenly spaced.

    Attributes:
        bound: the final value must not be worse than this, such as the best of earlier runs.
        evaluations: how many the whole run will have; the last one is predicted.
        monitor: metric of an evaluation.
        mode: whether less (``"min"``) or more (``"max"``) is better; by default as in
            ``EarlyStop``.
        patience: the run ends at this many bad predictions in a row.
        warmup: evaluations before the first prediction; four at least.

    Example:
        >>> rule = PredictedStop(bound=0.1, evaluations=50, patience=2)
        >>> state = rule.init()
        >>> import math
        >>> for t in range(5):
        ...     state = rule.observe(state, {"eval/loss": math.exp(-t / 2) + 0.3})
        >>> state["stop"]
        'loss is predicted to end at 0.3, worse than 0.1, for 2 evaluations in a row'
    """

    bound: float
    evaluations: int = attrs.field(validator=number(minimum=1, finite=False))
    monitor: str = "loss"
    mode: Mode | None = attrs.field(default=None, validator=optional(one_of(Mode)))
    patience: int = attrs.field(default=2, validator=number(minimum=1, finite=False))
    warmup: int = attrs.field(
        default=LEAST_POINTS, validator=number(minimum=LEAST_POINTS, finite=False)
    )

    def init(self) -> State:
        """Return the state before the first evaluation."""
        return {"values": [], "misses": 0, "stop": None}

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """Return the state after an evaluation; see :meth:`EarlyStop.observe`."""
        value = awaited(metrics, self.monitor)
        if value is None:
            return state
        mode = resolved_mode(self.monitor, self.mode, where="PredictedStop")
        values = [*state["values"], value]
        found = self._predicted(values)
        if found is None or not worse(found.value, self.bound, mode):
            return {"values": values, "misses": 0, "stop": None}
        misses = state["misses"] + 1
        stop: Any = None
        if misses >= self.patience:
            stop = (
                f"{self.monitor} is predicted to end at {found.value:.4g}, worse than "
                f"{self.bound:.4g}, for {misses} evaluations in a row"
            )
        return {"values": values, "misses": misses, "stop": stop}

    def _predicted(self, values: Sequence[float]) -> Prediction | None:
        if len(values) < self.warmup:
            return None
        return predict_final(range(len(values)), values, self.evaluations - 1)
