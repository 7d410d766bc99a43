"""``functrain verify``: read every byte of checkpoints, and report damage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import attrs
from rich.console import Console

from functrain import checkpoint
from functrain.checkpoint.storage.commit import present
from functrain.cli import output
from functrain.errors import FunctrainError
from functrain.tree.printing import byte_size
from functrain.view.run_checkpoints import bytes_in, check_step, paths_of


@attrs.frozen
class Result:
    """The result for one checkpoint; ``problem`` is ``None`` if it is ``ok``."""

    path: Path
    ok: bool
    bytes: int
    seconds: float
    problem: str | None


def verify(paths: Sequence[Path], console: Console, json: bool) -> bool:
    """Verify checkpoints, for runs all of them."""
    chosen = list(dict.fromkeys(found for path in paths for found in paths_of(path)))
    results = [_verified(path) for path in chosen]
    valid = all(result.ok for result in results)
    if json:
        output.print_json({"ok": valid, "checkpoints": list(map(attrs.asdict, results))})
    else:
        _print(results, console)
    return valid


def _verified(path: Path) -> Result:
    size, begin, problem = bytes_in(present(path)), time.perf_counter(), None
    try:
        check_step(path, checkpoint.verify(path))
    except FunctrainError as error:
        problem = str(getattr(error, "strerror", None) or error)
    return Result(path, problem is None, size, time.perf_counter() - begin, problem)


def _print(results: list[Result], console: Console) -> None:
    rows = (
        (
            output.cell("OK", "green") if result.ok else output.cell("damaged", "red"),
            byte_size(result.bytes),
            f"{result.seconds:.2f}",
            _short(result.path),
        )
        for result in results
    )
    heads, right = ("", "size", "seconds", "checkpoint"), ("size", "seconds")
    output.print_table(console, heads, rows, right=right, folded=heads[3:], spare=("seconds",))
    output.print_lines(console, *(r.problem for r in results if r.problem is not None))


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
