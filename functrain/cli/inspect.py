"""Looking at run directories: listing, showing, comparing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from functrain import tree
from functrain.checkpoint import Checkpoints, read_manifest
from functrain.errors import NoCheckpointError
from functrain.history import FILE_NAME, Row, read
from functrain.resumption import TYPES
from functrain.run_state import RunState

_MOST_DIFFERENCES = 20


def list_checkpoints(directory: Path, console: Console) -> None:
    """A table of the checkpoints of a run."""
    store = _existing(directory)
    table = Table("step", "metrics", "directory")
    for step in store.steps():
        metrics = read_manifest(store.path(step)).metrics
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        table.add_row(str(step), shown, store.path(step).name)
    console.print(table)


def show(directory: Path, console: Console) -> None:
    """The newest state of a run, leaf by leaf."""
    console.print(repr(_newest(directory).train), markup=False, highlight=False)


def diff(first: Path, second: Path, console: Console) -> bool:
    """Compare two runs: newest states, decisions and logs; the clock does not count.

    Returns:
        Whether they are equal.
    """
    ours, theirs = _newest(first), _newest(second)
    differences = tree.diff(ours, theirs)
    rows = [read(run / FILE_NAME) if (run / FILE_NAME).exists() else [] for run in (first, second)]
    parting = _parting(*rows)
    if not differences and parting is None:
        step = ours.train.counters.step
        console.print(f"the runs are equal: state and log of {step} steps, bit for bit")
        return True
    if parting is not None:
        console.print(parting, markup=False)
    table = Table("leaf", "kind", "difference", title=f"{len(differences)} leaves differ")
    for difference in differences[:_MOST_DIFFERENCES]:
        table.add_row(tree.path_string(difference.path), difference.kind, difference.detail)
    if differences:
        console.print(table)
    return False


def _parting(first: list[Row], second: list[Row]) -> str | None:
    for ours, theirs in zip(first, second, strict=False):
        for name in {**ours, **theirs}:
            if tree.diff(ours.get(name), theirs.get(name)):
                values = f"{ours.get(name)!r} and {theirs.get(name)!r}"
                return f"the logs part at step {ours.get('step')}: {name} is {values}"
    if len(first) != len(second):
        return f"the logs have {len(first)} and {len(second)} steps"
    return None


def _existing(directory: Path) -> Checkpoints:
    store = Checkpoints(directory)
    if not directory.is_dir() or not store.steps():
        raise NoCheckpointError(2, f"there is no run with checkpoints in {directory}")
    return store


def _newest(directory: Path) -> Any:
    saved, _ = _existing(directory).restore("latest", types=TYPES)
    if not isinstance(saved, RunState):
        raise NoCheckpointError(2, f"the checkpoints in {directory} are not those of a run")
    return saved
