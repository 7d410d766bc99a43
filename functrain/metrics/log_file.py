"""The format of ``metrics.jsonl``: one line of JSON a step.

:mod:`functrain.training.metrics_log` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from functrain.errors import LogError
from functrain.errors.paths import expanded

Row = dict[str, Any]
FILE_NAME = "metrics.jsonl"


def encode(row: Row) -> bytes:
    r"""Return a row as one line of JSON; NaN and infinities become strings, which JSON lacks.

    A metric of a population is a list, with ``null`` for members that have stopped.

    Example:
        >>> encode({"step": 1, "loss": math.nan}), encode({"loss": [0.5, math.inf, None]})
        (b'{"step":1,"loss":"nan"}\n', b'{"loss":[0.5,"inf",null]}\n')
    """
    line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    if b"null" not in line:  # which is what orjson makes of NaN, and of None
        return line
    plain = {name: _plain(value) for name, value in row.items()}
    return orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_plain, value))
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def decode(line: bytes) -> Row:
    """Return the row of a line."""
    row: Row = orjson.loads(line)
    return {name: _number(value) for name, value in row.items()}


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_number, value))
    return float(value) if value in ("nan", "inf", "-inf") else value


def read(path: Path) -> list[Row]:
    """Return the rows of a log file without a last line that a crash cut short.

    Raises:
        LogError: a line in the middle is not JSON.
    """
    return list(stream(path))


def stream(path: str | Path) -> Iterator[Row]:
    """Yield the rows of a log, which may be too large for a list.

    Args:
        path: a log, or a run directory that holds one.

    Raises:
        LogError: there is no log, or a line in the middle is damaged; earlier rows were yielded.
    """
    path = expanded(path)
    log = path / FILE_NAME if path.is_dir() else path
    try:
        file = open(log, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise LogError(f"{log} cannot be read: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # cut short by a crash
            try:
                row = decode(line)
            except (orjson.JSONDecodeError, AttributeError) as error:
                raise LogError(f"{log} is damaged in line {number}: {error}") from error
            yield row
