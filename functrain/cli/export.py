"""``functrain export``: write weights to a plain file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from functrain.checkpoint.exporting import export
from functrain.cli import output
from functrain.cli.checkpoint_argument import ChosenCheckpoint
from functrain.tree.printing import byte_size


def write(
    target: ChosenCheckpoint,
    out: Path,
    console: Console,
    json: bool,
    what: Any,
    format: Any,
    overwrite: bool,
    program: str | None,
) -> None:
    """Export weights, and print the file.

    Raises:
        The errors of :func:`functrain.checkpoint.exporting.export`.
    """
    path = export(target.path, out, what, format, overwrite, program)
    length = path.stat().st_size
    if json:
        output.print_json(
            {"path": path, "bytes": length, "step": target.manifest.step, "what": what}
        )
        return
    step = "" if target.manifest.step is None else f" of step {target.manifest.step}"
    console.print(
        output.cell(f"{what}{step} written to {path}: {byte_size(length)}"), soft_wrap=True
    )
