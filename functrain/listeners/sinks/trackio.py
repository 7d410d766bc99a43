"""Write metrics to Trackio."""

from __future__ import annotations

from typing import Any

from functrain.errors.optional import require
from functrain.listeners.sinks.configuration import Config, with_given
from functrain.listeners.sinks.sink import Sink
from functrain.listeners.sinks.steps_run import StepsRun
from functrain.training.durations import Duration


def Trackio(  # noqa: N802 (a factory that reads as a class)
    project: str,
    *,
    every: Duration | str = "1 step",
    required: bool = False,
    **init: Any,
) -> Sink:
    """Return a sink for Trackio, which logs each metric under its name at the step of the run.

    A resumed run continues under the same name. Trackio cannot remove rows, so steps that a
    killed run logged after its last checkpoint occur twice, with equal numbers.

    Args:
        project: the name of the project.
        every: the interval; rows with an evaluation or epoch means are always written.
        required: raise errors of the destination instead of warning with :class:`SinkWarning`.
        **init: other arguments of ``trackio.init``: ``name``, ``space_id``, ...; ``config`` adds to
            the configuration of the run, which is logged anyway.

    Returns:
        The listener.

    Raises:
        MissingExtraError: at the beginning of the run, if trackio is not installed.
    """

    def begin(run: str | None, config: Config) -> tuple[Any, str]:
        trackio = require("trackio", "trackio")
        known = {} if run is None else {"name": run, "resume": "allow"}
        full = with_given(config, init.get("config"))
        begun = trackio.init(project=project, **{**init, **known, "config": full})
        return begun, begun.name

    def image(array: Any) -> Any:
        return require("trackio", "trackio").Image(array)

    def text(value: str) -> Any:
        return require("trackio", "trackio").Markdown(value)

    return Sink(StepsRun(begin, image, text), f"Trackio({project!r})", every, required)
