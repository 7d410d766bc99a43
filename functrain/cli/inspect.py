"""Looking at run directories: listing, showing, comparing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from functrain import tree
from functrain.checkpoint import Checkpoints, read_manifest
from functrain.errors import FunctrainError, NoCheckpointError
from functrain.history import FILE_NAME, read
from functrain.resumption import TYPES
from functrain.run_state import RunState

_MOST_DIFFERENCES = 20


def list_checkpoints(directory: Path, console: Console) -> None:
    """A table of the checkpoints of a run."""
    store = _existing(directory)
    table = Table("step", "metrics", "directory")
    for step in store.steps():
        table.add_row(str(step), _metrics(store.path(step)), store.path(step).name)
    console.print(table)


def _metrics(path: Path) -> str:
    try:
        metrics = read_manifest(path).metrics
    except FunctrainError as error:
        return f"not readable: {type(error).__name__}"
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def show(directory: Path, console: Console) -> None:
    """The newest state of a run, leaf by leaf."""
    console.print(repr(newest(directory).train), markup=False, highlight=False)


def diff(first: Path, second: Path, console: Console) -> bool:
    """Compare two runs: newest states, decisions and logs; the clock does not count.

    Returns:
        Whether they are equal.
    """
    ours, theirs = newest(first), newest(second)
    differences = tree.diff(ours, theirs)
    parting = _parting(first / FILE_NAME, second / FILE_NAME)
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


def _parting(first: Path, second: Path) -> str | None:
    """Where two logs part, in words; nothing if they are the same bytes."""
    rows = [read(log) if log.exists() else [] for log in (first, second)]
    for ours, theirs in zip(*rows, strict=False):
        for name in {**ours, **theirs}:
            if tree.diff(ours.get(name), theirs.get(name)):
                values = f"{ours.get(name)!r} and {theirs.get(name)!r}"
                return f"the logs part at step {ours.get('step')}: {name} is {values}"
    lengths = [len(log) for log in rows]
    if lengths[0] != lengths[1]:
        return f"the logs have {lengths[0]} and {lengths[1]} steps"
    if lengths[0] and first.read_bytes() != second.read_bytes():
        return "the logs have the same values in other bytes"
    return None


def _existing(directory: Path) -> Checkpoints:
    store = Checkpoints(directory)
    if not directory.is_dir() or not store.steps():
        raise NoCheckpointError(2, f"there is no run with checkpoints in {directory}")
    return store


def newest(directory: Path) -> Any:
    """The ``RunState`` of the newest checkpoint that verifies.

    Raises:
        NoCheckpointError: there is none.
    """
    saved, _ = _existing(directory).restore("latest", types=TYPES)
    if not isinstance(saved, RunState):
        raise NoCheckpointError(2, f"the checkpoints in {directory} are not those of a run")
    return saved
