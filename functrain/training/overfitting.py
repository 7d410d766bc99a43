"""Ending a run when training goes on to improve and what it is evaluated on does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from functrain.core.direction import Mode, of_name, resolved
from functrain.training.early_stopping import State, at_least, find, improves, min_or_max


@attrs.frozen
class Overfit:
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
    patience: int = attrs.field(default=3, validator=at_least(1))
    mode: Mode | None = attrs.field(default=None, validator=min_or_max)
    training_mode: Mode | None = attrs.field(default=None, validator=min_or_max)

    def init(self) -> State:
        """State before the first evaluation."""
        return {"evaluated": None, "trained": None, "misses": 0, "stop": None}

    def directed(self, directions: Mapping[str, Mode]) -> Overfit:
        """The rule with its modes; see :meth:`EarlyStop.directed`."""
        mode = resolved(self.monitor, self.mode, directions, "Overfit")
        return attrs.evolve(self, mode=mode, training_mode=self._training_mode(mode))

    def observe(self, state: State, metrics: Mapping[str, float]) -> State:
        """State after an evaluation; unchanged where one of the two metrics is not there.

        Args:
            state: from :meth:`init` or an earlier call; not changed.
            metrics: of the evaluation and, as ``epoch/...``, of the epoch that has ended.

        Raises:
            ConfigurationError: nothing says whether less or more is better.
        """
        evaluated, trained = find(metrics, self.monitor), metrics.get(self.training)
        if evaluated is None or trained is None:
            return state
        mode = resolved(self.monitor, self.mode, where="Overfit")
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
        return self.training_mode or (mode if same else of_name(self.training) or mode)


def _better(value: Any, other: Any, mode: Mode) -> bool:
    return value is not None and other is not None and improves(value, other, mode)
