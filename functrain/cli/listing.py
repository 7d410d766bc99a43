"""``functrain ls``: the checkpoints of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from functrain.checkpoint import Manifest, read_manifest
from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.retention import Best
from functrain.checkpoint.storage.commit import present
from functrain.cli import output
from functrain.cli.targets import (
    best_step,
    check_step,
    is_checkpoint,
    monitored,
    paths_of,
    step_of,
)
from functrain.errors import FunctrainError


@attrs.frozen(eq=False)
class Row:
    """One checkpoint: what its manifest says, or why that cannot be read."""

    path: Path
    size: int
    manifest: Manifest | None
    problem: str | None

    @property
    def step(self) -> int | None:
        """Its step by its name, or by its manifest."""
        named = step_of(self.path)
        return named if named is not None or self.manifest is None else self.manifest.step

    @property
    def metrics(self) -> dict[str, Any]:
        """Values by name; empty where they cannot be read."""
        found = None if self.manifest is None else self.manifest.metrics
        return found if isinstance(found, dict) else {}


def list_checkpoints(
    directory: Path, console: Console, json: bool, monitor: str | None, mode: str | None
) -> None:
    """Print the checkpoints of a run, or the one that was named.

    Raises:
        NoCheckpointError: there is none.
    """
    rows = [row_of(path) for path in paths_of(directory)]
    run = directory.absolute().parent if is_checkpoint(directory) else directory
    by = monitored(run, monitor, mode)
    # Of a single one nothing is best.
    entries = {} if is_checkpoint(directory) else entries_of(rows)
    best = best_step(entries, by, asked=monitor is not None)
    by["mode"] = Best(by["monitor"], by["mode"]).direction(entries)
    if json:
        output.print_json({"directory": directory, **by, "checkpoints": _documents(rows, best)})
    else:
        _print(rows, best, console)


def row_of(path: Path) -> Row:
    """What can be said of a checkpoint without reading its payload."""
    place = present(path)
    try:
        return Row(path, bytes_of(place), check_step(path, read_manifest(path)), None)
    except FunctrainError as error:
        return Row(path, bytes_of(place), None, _reason(error, path))


def entries_of(rows: Iterable[Row]) -> dict[int, Entry]:
    """What retention looks at, of the checkpoints that can be read, by step."""
    return {
        row.step: Entry.of(row.metrics, row.manifest.saved_at, row.manifest.info)
        for row in rows
        if row.step is not None and row.manifest is not None
    }


def bytes_of(place: Path) -> int:
    """Bytes of the files in a checkpoint's directory; 0 where it is gone or may not be read."""
    try:
        with os.scandir(place) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0


def _reason(error: FunctrainError, path: Path) -> str:
    """What is wrong, without the path that stands beside it already."""
    text = str(getattr(error, "strerror", None) or error).splitlines()[0]
    return text.replace(f"{path}/", "").replace(f"{path} ", "")


def _documents(rows: list[Row], best: int | None) -> list[dict[str, Any]]:
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


def _print(rows: list[Row], best: int | None, console: Console) -> None:
    table = output.table(
        *("step", "", "saved (UTC)", "size", "leaves", "metrics"),
        right=("step", "size", "leaves"),
        folded=("metrics",),
    )
    for row in rows:
        manifest = row.manifest
        last = (
            output.cell(output.metrics_text(row.metrics))
            if row.problem is None
            else output.cell(f"not readable: {row.problem}", "red")
        )
        table.add_row(
            "-" if row.step is None else str(row.step),
            "best" if best is not None and row.step == best else "",
            "-" if manifest is None else output.moment(manifest.saved_at),
            output.size(row.size),
            "-" if manifest is None else f"{len(manifest.leaves):,}",
            last,
        )
    console.print(table)
