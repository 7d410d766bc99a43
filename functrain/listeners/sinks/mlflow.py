"""A sink of MLflow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from functrain.errors.optional import require
from functrain.listeners.sinks.sink import Sink
from functrain.training.durations import Duration
from functrain.training.metrics_log import Row

_MOST_METRICS = 1000  # of one request, MLflow's own limit
_MOST_PARAMS = 100
# MLflow may keep metrics in files by their names, and then "epoch" excludes "epoch/loss".
_NO_METRICS = ("step", "epoch")


def MLflow(  # noqa: N802 (reads as the class of what it makes)
    experiment: str,
    *,
    tracking_uri: str | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    every: Duration | str = "1 step",
    required: bool = False,
) -> Sink:
    """A sink for MLflow: metrics by their names in the log, at the step of the run.

    It uses a client of its own, so ``mlflow.start_run`` and the like are not disturbed. A
    resumed run goes on in the same MLflow run, and leaves out what stands there already.

    Args:
        experiment: its name; it is made where there is none.
        tracking_uri: the server, or ``"sqlite:///mlflow.db"``; by default MLflow's own setting.
        name: of the run, for people.
        config: parameters of the run (``program.recipe.describe()``, say); nested ones are named
            ``optimizer.lr``.
        every: of which steps; those with an evaluation or the means of an epoch are always written.
        required: a failure ends the run instead of being told in a :class:`SinkWarning`.

    Returns:
        The listener.

    Raises:
        MissingExtraError: at the beginning of the run, if mlflow is not installed.
    """
    client = _Client(experiment, tracking_uri, name, dict(_flat(config or {})))
    return Sink(client, f"MLflow({experiment!r})", every, required)


@attrs.define(eq=False)
class _Client:
    experiment: str
    tracking_uri: str | None
    name: str | None
    params: dict[str, str]
    client: Any = None
    entities: Any = None
    run: str = ""
    after: int = 0
    # Whether rows that are to be written may stand there in part: those of a killed run, or of a
    # request that failed. Then what stands there is asked for, once for each metric.
    in_doubt: bool = False
    logged: dict[str, set[int]] = attrs.field(factory=dict)

    def open(self, after: int, run: str | None) -> str:
        self.entities = require("mlflow.entities", "mlflow")
        tracking = require("mlflow.tracking", "mlflow")
        self.client = tracking.MlflowClient(tracking_uri=self.tracking_uri)
        self.after, self.logged, self.in_doubt = after, {}, run is not None
        self.run = self._begun() if run is None else run
        self.client.update_run(self.run, status="RUNNING")
        return self.run

    def write(self, rows: list[Row]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self.entities.Metric(name, value, now, row["step"])
            for row in rows
            for name, value in row.items()
            if name not in _NO_METRICS and row["step"] not in self._steps(name)
        ]
        self.logged, self.in_doubt, doubted = {}, True, self.logged
        for first in range(0, len(metrics), _MOST_METRICS):
            self.client.log_batch(self.run, metrics=metrics[first : first + _MOST_METRICS])
        self.logged, self.in_doubt, self.after = doubted, bool(doubted), rows[-1]["step"]

    def flush(self) -> None:
        """Nothing to be done: what was logged is at the server."""

    def close(self) -> None:
        self.client.set_terminated(self.run)

    def _begun(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        made = found is None
        where = self.client.create_experiment(self.experiment) if made else found.experiment_id
        run: str = self.client.create_run(where, run_name=self.name).info.run_id
        params = [self.entities.Param(key, value) for key, value in self.params.items()]
        for first in range(0, len(params), _MOST_PARAMS):
            self.client.log_batch(run, params=params[first : first + _MOST_PARAMS])
        return run

    def _steps(self, name: str) -> set[int]:
        """The steps that a metric has already of those that are to be written."""
        if self.in_doubt and name not in self.logged:
            history = self.client.get_metric_history(self.run, name)
            self.logged[name] = {each.step for each in history if each.step > self.after}
        return self.logged.get(name, set())


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values by their paths, as texts.

    Example:
        >>> dict(_flat({"optimizer": {"type": "SGD", "lr": 0.1}}))
        {'optimizer.type': 'SGD', 'optimizer.lr': '0.1'}
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
