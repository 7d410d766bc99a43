"""``functrain plot``: draw the curves of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from functrain.cli import output
from functrain.errors import LogError
from functrain.metrics.log_file import FILE_NAME
from functrain.plotting.chart import Options, chart_of
from functrain.plotting.columns import Columns
from functrain.plotting.curves import short_names
from functrain.view.page import check_format, draw
from functrain.view.report_facts import read_log, runs_at


def plot(paths: Sequence[Path], out: Path | None, options: Options, console: Console) -> None:
    """Draw the curves of one or several runs."""
    out = out or (paths[0] if len(paths) == 1 else Path()) / "curves.png"
    check_format(out)
    runs, notes = _read(runs_at(paths))
    title = next(iter(runs)) if len(runs) == 1 else f"{len(runs)} runs"
    draw(chart_of(runs, options, title), out, notes)
    output.print_lines(console, *notes, out)


def _read(paths: Sequence[Path]) -> tuple[dict[str, Columns], tuple[str, ...]]:
    """Return columns by short names of the runs, and notes about skipped or damaged runs."""
    logs = [(path, *read_log(path)) for path in paths]
    drawn = [(path, columns) for path, columns, _ in logs if columns.length]
    if not drawn:
        log = paths[0] / FILE_NAME
        raise LogError(f"there is nothing to draw: {log} has no steps")
    damaged = [problem for _, columns, problem in logs if problem and columns.length]
    empty = [f"skipped {path}: no steps" for path, columns, _ in logs if not columns.length]
    names = short_names([path for path, _ in drawn])
    runs = {name: columns for name, (_, columns) in zip(names, drawn, strict=True)}
    return runs, (*(f"drawn up to there: {problem}" for problem in damaged), *empty)
