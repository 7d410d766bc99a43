"""Write metrics to Weights & Biases and to Trackio, which has the same interface."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs

from functrain.errors.optional import require
from functrain.listeners.sinks.configuration import Configured
from functrain.listeners.sinks.media import Medium
from functrain.listeners.sinks.sink import Sink
from functrain.metrics.log_file import Row
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
    # Create a separate run even if the process already logs to another.
    options = {"project": project, "mode": mode, "reinit": "create_new", **init}
    run = StepsRun(init.get("config"), "wandb", "id", options, _as_html)
    return Sink(run, f"WandB({project!r})", every, required)


def Trackio(  # noqa: N802 (a factory that reads as a class)
    project: str, *, every: Duration | str = "1 step", required: bool = False, **init: Any
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
    options = {"project": project, **init}
    run = StepsRun(init.get("config"), "trackio", "name", options, _as_markdown)
    return Sink(run, f"Trackio({project!r})", every, required)


def _as_html(text: str) -> tuple[str, str]:
    return "Html", f"<pre>{html.escape(text)}</pre>"


def _as_markdown(text: str) -> tuple[str, str]:
    return "Markdown", text


@attrs.define(eq=False)
class StepsRun(Configured):
    """A run of a tracker with the methods ``log(metrics, step)`` and ``finish``.

    Attributes:
        package: of the tracker.
        key: the argument of its ``init`` that names a run to continue.
        options: other arguments of ``init``.
        text: from a string to the name of a class of the package and its argument.
    """

    package: str
    key: str
    options: Mapping[str, Any]
    text: Callable[[str], tuple[str, str]]
    run: Any = None
    step: int = 0

    def open(self, after: int, run: str | None) -> str:
        """Begin a run, or continue the one of this name."""
        known = {} if run is None else {self.key: run, "resume": "allow"}
        options = {**self.options, **known, "config": self.config}
        self.run = require(self.package, self.package).init(**options)
        self.step = after
        name: str = getattr(self.run, self.key)
        return name

    def write(self, rows: list[Row]) -> None:
        """Log rows, except those that a failed attempt has already logged."""
        for row in rows:
            if row["step"] > self.step:
                metrics = {name: value for name, value in row.items() if name != "step"}
                self.run.log(metrics, step=row["step"])
                self.step = row["step"]

    def write_media(self, medium: Medium) -> None:
        """Log a text or an image, unless a later step is logged already."""
        if medium.step >= self.step:
            value = medium.value
            kind, held = self.text(value) if isinstance(value, str) else ("Image", value.numpy())
            logged = getattr(require(self.package, self.package), kind)(held)
            self.run.log({medium.name: logged}, step=medium.step)
            self.step = medium.step

    def flush(self) -> None:
        """Do nothing: the tracker writes in a process of its own."""

    def close(self) -> None:
        """Finish the run; it may be continued later."""
        self.run.finish()
