"""A sink of TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain.errors.optional import require
from functrain.listeners.sinks.sink import Sink
from functrain.training.durations import Duration
from functrain.training.metrics_log import Row


def TensorBoard(  # noqa: N802 (reads as the class of what it makes)
    directory: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    every: Duration | str = "1 step",
    required: bool = False,
) -> Sink:
    """A sink for TensorBoard: each metric a scalar, by its name in the log.

    A resumed run writes a file of its own, and TensorBoard leaves out what older files have of
    the same steps (``purge_step``). Numbers are in float32 there.

    Args:
        directory: of the event files; one for each run.
        config: what the run was made with (``program.recipe.describe()``, say), as a text.
        every: of which steps; those with an evaluation or the means of an epoch are always written.
        required: a failure ends the run instead of being told in a :class:`SinkWarning`.

    Returns:
        The listener.

    Raises:
        MissingExtraError: at the beginning of the run, if tensorboard is not installed.
    """
    events = _EventFiles(Path(directory), config)
    return Sink(events, f"TensorBoard({str(directory)!r})", every, required)


@attrs.define(eq=False)
class _EventFiles:
    directory: Path
    config: Mapping[str, Any] | None
    writer: Any = None

    def open(self, after: int, run: str | None) -> None:
        require("tensorboard", "tensorboard")  # torch's own message names no extra
        torch_side = require("torch.utils.tensorboard", "tensorboard")
        self.writer = torch_side.SummaryWriter(str(self.directory), purge_step=after + 1)
        if self.config is not None and not after:
            text = orjson.dumps(dict(self.config), option=orjson.OPT_INDENT_2, default=str)
            self.writer.add_text("config", f"```\n{text.decode()}\n```")

    def write(self, rows: list[Row]) -> None:
        # Only queued here: a disk that fails is told by flush.
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    self.writer.add_scalar(name, value, row["step"])

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
