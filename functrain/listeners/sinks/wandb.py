"""A sink of Weights & Biases."""

from __future__ import annotations

from typing import Any

from functrain.errors.optional import require
from functrain.listeners.sinks.sink import Sink
from functrain.listeners.sinks.steps_run import StepsRun
from functrain.training.durations import Duration


def WandB(  # noqa: N802 (reads as the class of what it makes)
    project: str,
    *,
    mode: str = "online",
    every: Duration | str = "1 step",
    required: bool = False,
    **init: Any,
) -> Sink:
    """A sink for Weights & Biases: metrics by their names in the log, at the step of the run.

    A resumed run goes on under the same id. The server has each step once; steps that a killed
    run had sent after its last checkpoint are the same when they are made again. Offline each
    resumption writes a directory of its own for ``wandb sync``.

    Args:
        project: its name.
        mode: ``"online"`` or ``"offline"``.
        every: of which steps; those with an evaluation or the means of an epoch are always written.
        required: a failure ends the run instead of being told in a :class:`SinkWarning`.
        **init: what else ``wandb.init`` takes: ``name``, ``config=program.recipe.describe()``, ...

    Returns:
        The listener.

    Raises:
        MissingExtraError: at the beginning of the run, if wandb is not installed.
    """

    def begin(run: str | None) -> tuple[Any, str]:
        wandb = require("wandb", "wandb")
        known = {} if run is None else {"id": run, "resume": "allow"}
        # A run of its own, whatever else in the process logs to another.
        options = {"reinit": "create_new", **init, **known}
        begun = wandb.init(project=project, mode=mode, **options)
        return begun, begun.id

    return Sink(StepsRun(begin), f"WandB({project!r})", every, required)
