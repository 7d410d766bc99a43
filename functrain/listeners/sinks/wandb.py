"""Write metrics to Weights & Biases."""

from __future__ import annotations

import html
from typing import Any, Literal

from functrain.errors.optional import require
from functrain.listeners.sinks.configuration import Config, with_given
from functrain.listeners.sinks.sink import Sink
from functrain.listeners.sinks.steps_run import StepsRun
from functrain.training.durations import Duration


def WandB(  # noqa: N802 (a factory that reads as a class)
    project: str,
    *,
    mode: Literal["online", "offline"] = "online",
    every: Duration | str = "1 step",
    required: bool = False,
    **init: Any,
) -> Sink:
    """Return a sink for Weights & Biases, which logs each metric under its name at each step.

    A resumed run continues under the same id. The server keeps each step once; a resumed run
    repeats the steps after the last checkpoint with the same numbers. In offline mode each
    resumption writes a new directory for ``wandb sync``.

    Args:
        project: the name of the project.
        mode: ``"online"`` or ``"offline"``.
        every: the interval; rows with an evaluation or epoch means are always written.
        required: raise errors of the destination instead of warning with :class:`SinkWarning`.
        **init: other arguments of ``wandb.init``: ``name``, ``tags``, ...; ``config`` adds to the
            configuration of the run, which is logged anyway.

    Returns:
        The listener.

    Raises:
        MissingExtraError: at the beginning of the run, if wandb is not installed.
    """

    def begin(run: str | None, config: Config) -> tuple[Any, str]:
        wandb = require("wandb", "wandb")
        known = {} if run is None else {"id": run, "resume": "allow"}
        # Create a separate run even if the process already logs to another.
        options = {"reinit": "create_new", **init, **known}
        options["config"] = with_given(config, init.get("config"))
        begun = wandb.init(project=project, mode=mode, **options)
        return begun, begun.id

    def image(array: Any) -> Any:
        return require("wandb", "wandb").Image(array)

    def text(value: str) -> Any:
        return require("wandb", "wandb").Html(f"<pre>{html.escape(value)}</pre>")

    return Sink(StepsRun(begin, image, text), f"WandB({project!r})", every, required)
