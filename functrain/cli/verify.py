"""``functrain verify``: read every byte of checkpoints, and report damage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from functrain import checkpoint
from functrain.checkpoint.storage.commit import present
from functrain.cli import output
from functrain.errors import FunctrainError
from functrain.tree.printing import byte_size
from functrain.view.run_checkpoints import bytes_in, check_step, paths_of


def verify(paths: Sequence[Path], console: Console, json: bool) -> bool:
    """Verify checkpoints, for runs all of them."""
    chosen = dict.fromkeys(each for path in paths for each in paths_of(path))
    results = list(map(_verify, chosen))
    valid = all(result["ok"] for result in results)
    if json:
        output.print_json({"ok": valid, "checkpoints": results})
        return valid
    heads, right = ("", "size", "seconds", "checkpoint"), ("size", "seconds")
    rows = map(_row, results)
    output.print_table(console, heads, rows, right=right, folded=heads[3:], spare=("seconds",))
    output.print_lines(console, *(each["problem"] for each in results if not each["ok"]))
    return valid


def _verify(path: Path) -> dict[str, Any]:
    size, begin, problem = bytes_in(present(path)), time.perf_counter(), None
    try:
        check_step(path, checkpoint.verify(path))
    except FunctrainError as error:
        problem = str(getattr(error, "strerror", None) or error)
    seconds = time.perf_counter() - begin
    return {
        "path": path,
        "ok": problem is None,
        "bytes": size,
        "seconds": seconds,
        "problem": problem,
    }


def _row(result: dict[str, Any]) -> tuple[object, ...]:
    word = output.cell("OK", "green") if result["ok"] else output.cell("damaged", "red")
    path, here = result["path"], Path.cwd()
    short = path.relative_to(here) if path.is_relative_to(here) else path
    return word, byte_size(result["bytes"]), f"{result['seconds']:.2f}", short
