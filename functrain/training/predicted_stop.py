"""Ending a run early by its predicted final value: a pure reducer over evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from functrain.core.direction import Mode, resolved
from functrain.training.early_stopping import State, at_least, awaited, min_or_max
from functrain.training.prediction import LEAST_POINTS, Prediction, predict_final


@attrs.frozen(kw_only=True)
class PredictedStop:
    """End a run whose predicted final value is worse than a bound; a rule like ``EarlyStop``.

    Evaluations are the unit of time, so they should be evenly spaced.

    Attributes:
        bound: what the final value must not be worse than, such as the best of earlier runs.
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
    evaluations: int = attrs.field(validator=at_least(1))
    monitor: str = "loss"
    mode: Mode | None = attrs.field(default=None, validator=min_or_max)
    patience: int = attrs.field(default=2, validator=at_least(1))
    warmup: int = attrs.field(default=LEAST_POINTS, validator=at_least(LEAST_POINTS))

    def init(self) -> State:
        """State before the first evaluation."""
        return {"values": [], "misses": 0, "stop": None}

    def directed(self, directions: Mapping[str, Mode]) -> PredictedStop:
        """The rule with its mode; see :meth:`EarlyStop.directed`."""
        mode = resolved(self.monitor, self.mode, directions, "PredictedStop")
        return attrs.evolve(self, mode=mode)

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """State after an evaluation.

        Args:
            state: from :meth:`init` or an earlier call; not changed.
            metrics: what the evaluation gave. Without the monitored metric nothing changes and a
                :class:`MissingMetricWarning` names those there are.

        Returns:
            The new state; ``stop`` says why the run is to end, or is ``None``.

        Raises:
            ConfigurationError: nothing says whether less or more is better.
        """
        value = awaited(metrics, self.monitor)
        if value is None:
            return state
        mode = resolved(self.monitor, self.mode, where="PredictedStop")
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


def worse(value: float, bound: float, mode: Mode) -> bool:
    """Whether a value is strictly worse than a bound.

    Example:
        >>> worse(0.5, 0.4, "min"), worse(0.5, 0.4, "max"), worse(0.4, 0.4, "min")
        (True, False, False)
    """
    return value > bound if mode == "min" else value < bound
