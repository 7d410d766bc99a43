"""Write metrics to TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain.errors.optional import require
from functrain.errors.paths import absolute
from functrain.listeners.sinks.configuration import Configured, flat
from functrain.listeners.sinks.media import Medium
from functrain.listeners.sinks.sink import Sink
from functrain.metrics.log_file import Row
from functrain.training.durations import Duration

_COMPARED = ("loss", "eval/loss")  # the columns of the table of hyperparameters


def TensorBoard(  # noqa: N802 (a factory that reads as a class)
    directory: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    every: Duration | str = "1 step",
    required: bool = False,
) -> Sink:
    """Return a sink for TensorBoard, which writes each metric as a scalar under its name.

    A resumed run writes a new file, and TensorBoard ignores the same steps in older files
    (``purge_step``). TensorBoard stores numbers as float32.

    Args:
        directory: the directory of the event files, one for each run.
        config: adds to the configuration of the run, which is logged anyway, as text and as
            hyperparameters.
        every: the interval; rows with an evaluation or epoch means are always written.
        required: raise errors of the destination instead of warning with :class:`SinkWarning`.

    Returns:
        The listener.

    Raises:
        MissingExtraError: at the beginning of the run, if tensorboard is not installed.
    """
    events = _EventFiles(config, absolute(directory))
    return Sink(events, f"TensorBoard({str(directory)!r})", every, required)


@attrs.define(eq=False)
class _EventFiles(Configured):
    directory: Path
    writer: Any = None

    def open(self, after: int, run: str | None) -> None:
        require("tensorboard", "tensorboard")  # torch's own message names no extra
        torch_side = require("torch.utils.tensorboard", "tensorboard")
        self.writer = torch_side.SummaryWriter(str(self.directory), purge_step=after + 1)
        if self.config and not after:
            self._write_config()

    def write(self, rows: list[Row]) -> None:
        # This only queues; flush raises errors of the disk.
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    self.writer.add_scalar(name, value, row["step"])

    def _write_config(self) -> None:
        text = orjson.dumps(self.config, option=orjson.OPT_INDENT_2, default=str)
        self.writer.add_text("config", f"```\n{text.decode()}\n```")
        # Not add_hparams: it writes to another directory, which looks like a run of its own.
        hparams = require("torch.utils.tensorboard.summary", "tensorboard").hparams
        plain = bool | int | float | str
        values = {k: v if isinstance(v, plain) else str(v) for k, v in flat(self.config)}
        for part in hparams(values, dict.fromkeys(_COMPARED, 0.0)):
            self.writer.file_writer.add_summary(part)

    def write_media(self, medium: Medium) -> None:
        if isinstance(medium.value, str):
            self.writer.add_text(medium.name, f"```\n{medium.value}\n```", medium.step)
        else:
            image = medium.value.numpy()
            self.writer.add_image(medium.name, image, medium.step, dataformats="HWC")

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
