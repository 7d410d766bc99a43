"""Write metrics to MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import attrs

from functrain.errors.optional import require
from functrain.listeners.sinks.configuration import Config, Configured, flat
from functrain.listeners.sinks.media import Medium
from functrain.listeners.sinks.sink import Sink
from functrain.metrics.log_file import Row
from functrain.training.durations import Duration

_MOST_METRICS = 1000  # per request, MLflow's own limit
_MOST_PARAMS = 100
# MLflow may store each metric in a file of its name; then "epoch" excludes "epoch/loss".
_NO_METRICS = ("step", "epoch")


def MLflow(  # noqa: N802 (a factory that reads as a class)
    experiment: str,
    *,
    tracking_uri: str | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    every: Duration | str = "1 step",
    required: bool = False,
) -> Sink:
    """Return a sink for MLflow, which logs each metric under its name at the step of the run.

    It has its own client, so it does not interfere with ``mlflow.start_run`` and the like. A
    resumed run continues the same MLflow run, and skips metrics that MLflow already has.

    Args:
        experiment: the name of the experiment; created if necessary.
        tracking_uri: the server, or ``"sqlite:///mlflow.db"``; by default MLflow's own setting.
        name: the display name of the run.
        config: parameters in addition to the configuration of the run, which is logged anyway;
            nested ones get names like ``optimizer.lr``.
        every: the interval; rows with an evaluation or epoch means are always written.
        required: raise errors of the destination instead of warning with :class:`SinkWarning`.

    Returns:
        The listener.

    Raises:
        MissingExtraError: at the beginning of the run, if mlflow is not installed.
    """
    client = _Client(config, experiment, tracking_uri, name)
    return Sink(client, f"MLflow({experiment!r})", every, required)


@attrs.define(eq=False)
class _Client(Configured):
    experiment: str
    tracking_uri: str | None
    name: str | None
    client: Any = None
    entities: Any = None
    run: str = ""
    after: int = 0
    # Whether MLflow may already have some of the rows to write, because the run was killed or a
    # request failed. Then ask it once for the steps of each metric.
    in_doubt: bool = False
    logged: dict[str, set[int]] = attrs.field(factory=dict)

    def open(self, after: int, run: str | None) -> str:
        self.entities = require("mlflow.entities", "mlflow")
        tracking = require("mlflow.tracking", "mlflow")
        self.client = tracking.MlflowClient(tracking_uri=self.tracking_uri)
        self.after, self.logged, self.in_doubt = after, {}, run is not None
        self.run = run or self.run or self._new_run()
        if run is None:
            self._log_params()
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

    def write_media(self, medium: Medium) -> None:
        """Log a text or an image as a file; one that is logged again replaces it."""
        name = re.sub(r"[^\w\-. /]", "_", medium.name)
        path = f"media/{name}/step-{medium.step:08d}"
        if isinstance(medium.value, str):
            self.client.log_text(self.run, medium.value, f"{path}.txt")
        else:
            array = medium.value.squeeze(2) if medium.value.shape[2] == 1 else medium.value
            self.client.log_image(self.run, array.numpy(), artifact_file=f"{path}.png")

    def flush(self) -> None:
        """Do nothing: the server already has what was logged."""

    def close(self) -> None:
        self.client.set_terminated(self.run)
        self.run = ""

    def _new_run(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        made = found is None
        where = self.client.create_experiment(self.experiment) if made else found.experiment_id
        run: str = self.client.create_run(where, run_name=self.name).info.run_id
        return run

    def _log_params(self) -> None:
        """Log the configuration; the same again after a failure changes nothing."""
        params = _params(self.config)
        entities = [self.entities.Param(key, value) for key, value in params.items()]
        for first in range(0, len(entities), _MOST_PARAMS):
            self.client.log_batch(self.run, params=entities[first : first + _MOST_PARAMS])

    def _steps(self, name: str) -> set[int]:
        """Return the later steps at which MLflow already has a metric."""
        if self.in_doubt and name not in self.logged:
            history = self.client.get_metric_history(self.run, name)
            self.logged[name] = {each.step for each in history if each.step > self.after}
        return self.logged.get(name, set())


def _params(config: Config) -> dict[str, str]:
    """Return values as texts by dotted paths, in the characters that MLflow allows.

    Example:
        >>> _params({"optimizer": {"type": "SGD", "lr": 0.1}, "groups": {"*.bias": 0}})
        {'optimizer.type': 'SGD', 'optimizer.lr': '0.1', 'groups._.bias': '0'}
    """
    params: dict[str, str] = {}
    for path, value in flat(config):
        name = re.sub(r"[^\w\-. :/]", "_", path)
        while name in params:
            name += "_"
        params[name] = str(value)
    return params
