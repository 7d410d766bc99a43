"""Early stopping and best value, as pure reducers over evaluations: they resume like all state."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import attrs

from functrain.errors import ConfigurationError, MissingMetricWarning

State = dict[str, Any]


def improves(value: float, best: float | None, mode: str) -> bool:
    """Whether a value is strictly better than the best so far; what is not finite never is.

    Example:
        >>> improves(0.5, None, "min"), improves(0.5, 0.5, "min"), improves(math.nan, None, "max")
        (True, False, False)
    """
    if not math.isfinite(value):
        return False
    return best is None or (value < best if mode == "min" else value > best)


def best_after(best: State, value: float | None, step: int, mode: str) -> State:
    """The best value and its step after an evaluation.

    Args:
        best: ``{"value", "step"}`` so far; returned itself where nothing improved.
        value: the metric, ``None`` where it was not measured.
        step: where it was measured.
        mode: ``"min"`` or ``"max"``.

    Example:
        >>> best_after({"value": 0.5, "step": 3}, 0.25, 4, "min")
        {'value': 0.25, 'step': 4}
    """
    if value is None or not improves(value, best["value"], mode):
        return best
    return {"value": value, "step": step}


def find(metrics: Mapping[str, float], monitor: str) -> float | None:
    """The metric a monitor names: in full, or as ``"loss"`` for ``"eval/loss"``."""
    return metrics.get(monitor, metrics.get(f"eval/{monitor}"))


def _mode(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if value not in ("min", "max"):
        raise ConfigurationError(f'{attribute.name} must be "min" or "max", came {value!r}')


def _at_least(least: float) -> Any:
    def check(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not value >= least:
            raise ConfigurationError(f"{attribute.name} must be at least {least}, came {value!r}")

    return check


@attrs.frozen
class EarlyStop:
    """End a run when a metric no longer improves.

    Attributes:
        monitor: metric of an evaluation, such as ``"loss"`` or ``"eval/ema/accuracy"``.
        patience: the run ends at this many evaluations in a row without improvement.
        mode: whether less (``"min"``) or more (``"max"``) is better.
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
    patience: int = attrs.field(default=5, validator=_at_least(1))
    mode: str = attrs.field(default="min", validator=_mode)
    min_delta: float = attrs.field(default=0.0, validator=_at_least(0.0))
    relative: bool = False
    lower: float | None = None
    upper: float | None = None

    def init(self) -> State:
        """State before the first evaluation."""
        return {"best": None, "misses": 0, "stop": None}

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """State after an evaluation.

        Args:
            state: from :meth:`init` or an earlier call; not changed.
            metrics: what the evaluation gave. Without the monitored metric nothing changes and a
                :class:`MissingMetricWarning` names those there are.

        Returns:
            The new state; ``stop`` says why the run is to end, or is ``None``.
        """
        value = find(metrics, self.monitor)
        if value is None:
            warnings.warn(
                f"early stopping waits for {self.monitor!r}, but the evaluation gave only "
                f"{sorted(metrics)}",
                MissingMetricWarning,
                stacklevel=2,
            )
            return state
        if outside := self._outside(value):
            return {**state, "stop": outside}
        if self._improved(value, state["best"]):
            return {"best": value, "misses": 0, "stop": None}
        misses = state["misses"] + 1
        stop = None
        if misses >= self.patience:
            best = state["best"]
            stop = f"{self.monitor} has not improved on {best} in {misses} evaluations"
        return {**state, "misses": misses, "stop": stop}

    def _improved(self, value: float, best: float | None) -> bool:
        if best is None:
            return improves(value, None, self.mode)
        margin = self.min_delta * abs(best) if self.relative else self.min_delta
        return improves(value, best - margin if self.mode == "min" else best + margin, self.mode)

    def _outside(self, value: float) -> str | None:
        if self.lower is not None and value < self.lower:
            return f"{self.monitor} is {value}, below the bound {self.lower}"
        if self.upper is not None and not value <= self.upper:
            return f"{self.monitor} is {value}, above the bound {self.upper}"
        return None
