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
    documents = [_document(row, best) for row in rows]
    if json:
        output.print_json({"directory": directory, **by, "checkpoints": documents})
        return
    output.print_table(
        console,
        ("step", "", "saved (UTC)", "size", "leaves", "metrics"),
        map(_cells, documents),
        right=("step", "size", "leaves"),
        folded=("metrics",),
        spare=("leaves", "size", "saved (UTC)"),
    )


def _document(row: CheckpointSummary, best: int | None) -> dict[str, Any]:
    manifest = row.manifest
    return {
        "step": row.step,
        "path": row.path,
        "saved_at": None if manifest is None else manifest.saved_at,
        "bytes": row.size,
        "leaves": None if manifest is None else len(manifest.leaves),
        "metrics": row.metrics,
        "best": best is not None and row.step == best,
        "problem": row.problem,
    }


def _cells(document: dict[str, Any]) -> tuple[object, ...]:
    problem, leaves = document["problem"], document["leaves"]
    return (
        "-" if document["step"] is None else document["step"],
        "best" if document["best"] else "",
        plain_text.moment(document["saved_at"]),
        byte_size(document["bytes"]),
        "-" if leaves is None else f"{leaves:,}",
        output.cell(f"not readable: {problem}", "red")
        if problem
        else plain_text.metrics_text(document["metrics"]),
    )
