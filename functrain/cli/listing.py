"""``functrain ls``: list the checkpoints of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from functrain.checkpoint.retention import Best
from functrain.cli import output
from functrain.tree.printing import byte_size
from functrain.view import plain_text
from functrain.view.run_checkpoints import (
    CheckpointSummary,
    best_step,
    entries_of,
    is_checkpoint,
    monitored,
    paths_of,
)


def list_checkpoints(
    directory: Path, console: Console, json: bool, monitor: str | None, mode: str | None
) -> None:
    """Print the checkpoints of a run, or a single one."""
    rows = [CheckpointSummary.of(path) for path in paths_of(directory)]
    run = directory.absolute().parent if is_checkpoint(directory) else directory
    by = monitored(run, monitor, mode)
    # A single checkpoint has no best.
    entries = {} if is_checkpoint(directory) else entries_of(rows)
    best = best_step(entries, by, required=monitor is not None)
    by["mode"] = Best(by["monitor"], by["mode"]).direction(entries)
    if json:
        output.print_json({"directory": directory, **by, "checkpoints": _documents(rows, best)})
    else:
        _print(rows, best, console)


def _documents(rows: list[CheckpointSummary], best: int | None) -> list[dict[str, Any]]:
    return [
        {
            "step": row.step,
            "path": row.path,
            "saved_at": None if row.manifest is None else row.manifest.saved_at,
            "bytes": row.size,
            "leaves": None if row.manifest is None else len(row.manifest.leaves),
            "metrics": row.metrics,
            "best": best is not None and row.step == best,
            "problem": row.problem,
        }
        for row in rows
    ]


def _print(rows: list[CheckpointSummary], best: int | None, console: Console) -> None:
    cells = (
        (
            "-" if row.step is None else row.step,
            "best" if best is not None and row.step == best else "",
            "-" if row.manifest is None else plain_text.moment(row.manifest.saved_at),
            byte_size(row.size),
            "-" if row.manifest is None else f"{len(row.manifest.leaves):,}",
            plain_text.metrics_text(row.metrics)
            if row.problem is None
            else output.cell(f"not readable: {row.problem}", "red"),
        )
        for row in rows
    )
    output.print_table(
        console,
        ("step", "", "saved (UTC)", "size", "leaves", "metrics"),
        cells,
        right=("step", "size", "leaves"),
        folded=("metrics",),
        spare=("leaves", "size", "saved (UTC)"),
    )
