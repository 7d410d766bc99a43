"""A run of a tracker with the methods of Weights & Biases: ``log(metrics, step)``, ``finish``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from functrain.listeners.sinks.configuration import Config
from functrain.listeners.sinks.media import Medium
from functrain.metrics.log_file import Row


@attrs.define(eq=False)
class StepsRun:
    """A destination that logs row by row.

    Args:
        begin: (name of the run to continue, or ``None``, configuration) -> (run, its name).
        image: from an array to what the run logs as an image.
        text: from a string to what it logs as a text.
    """

    begin: Callable[[str | None, Config], tuple[Any, str]]
    image: Callable[[Any], Any]
    text: Callable[[str], Any]
    run: Any = None
    step: int = 0
    config: Config = attrs.field(factory=dict)

    def configure(self, config: Config) -> None:
        """Keep the configuration of the run until it is opened."""
        self.config = config

    def open(self, after: int, run: str | None) -> str:
        """Begin a run, or continue the one of this name."""
        self.run, name = self.begin(run, self.config)
        self.step = after
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
            logged = self.text(value) if isinstance(value, str) else self.image(value.numpy())
            self.run.log({medium.name: logged}, step=medium.step)
            self.step = medium.step

    def flush(self) -> None:
        """Do nothing: the tracker writes in a process of its own."""

    def close(self) -> None:
        """Finish the run; it may be continued later."""
        self.run.finish()
