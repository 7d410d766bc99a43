"""A sink of Trackio."""

from __future__ import annotations

from typing import Any

from functrain.errors.optional import require
from functrain.listeners.sinks.sink import Sink
from functrain.listeners.sinks.steps_run import StepsRun
from functrain.training.durations import Duration


def Trackio(  # noqa: N802 (reads as the class of what it makes)
    project: str,
    *,
    every: Duration | str = "1 step",
    required: bool = False,
    **init: Any,
) -> Sink:
    """A sink for Trackio: metrics by their names in the log, at the step of the run.

    A resumed run goes on under the same name. Trackio has no way to take rows back: the steps
    that a killed run had logged after its last checkpoint stand there twice, with equal numbers.

    Args:
        project: its name.
        every: of which steps; those with an evaluation or the means of an epoch are always written.
        required: a failure ends the run instead of being told in a :class:`SinkWarning`.
        **init: what else ``trackio.init`` takes: ``name``, ``config=program.recipe.describe()``,
            ``space_id``, ...

    Returns:
        The listener.

    Raises:
        MissingExtraError: at the beginning of the run, if trackio is not installed.
    """

    def begin(run: str | None) -> tuple[Any, str]:
        trackio = require("trackio", "trackio")
        known = {} if run is None else {"name": run, "resume": "allow"}
        begun = trackio.init(project=project, **{**init, **known})
        return begun, begun.name

    return Sink(StepsRun(begin), f"Trackio({project!r})", every, required)
