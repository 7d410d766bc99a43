"""``functrain ls FOLDER``: runs, their forks, and steps set aside by rewinding."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from functrain.checkpoint import Checkpoints
from functrain.cli import output
from functrain.errors import FunctrainError, NoCheckpointError
from functrain.training.choosing import parent_of
from functrain.view import plain_text
from functrain.view.run_checkpoints import best_step, is_checkpoint, monitored, step_of

_ASIDE = re.compile(r"set-aside-from-(\d+)-to-(\d+)(-\d+)?")


@attrs.frozen(eq=False)
class Member:
    """A run directory and its origin.

    Attributes:
        path: absolute, without links.
        kind: ``run``; ``fork``, started from a checkpoint of another run; or ``set aside``, the
            later steps of a run that was rewound.
        parent: the run of origin.
        step: the step of the fork; for steps set aside, the last common step.
        steps: the steps of the first and the last checkpoint, if there are any.
        monitor: the metric that determines the best checkpoint.
        best: step and value of the metric in the best checkpoint, and ``last`` in the newest.
    """

    path: Path
    kind: str
    parent: Path | None
    step: int | None
    steps: tuple[int, int] | None
    monitor: str
    best: dict[str, Any] | None
    last: dict[str, Any] | None
    problem: str | None = None


def show_run_tree(
    directory: Path, console: Console, json: bool, monitor: str | None, mode: str | None
) -> None:
    """Print the runs below a directory as a tree."""
    members = find_runs(directory, monitor, mode)
    if not members:
        raise NoCheckpointError(errno.ENOENT, f"there are no runs in {directory}")
    if json:
        runs = [attrs.asdict(member) for member in members]
        output.print_json({"directory": directory, "runs": runs})
        return
    _print(list(_in_order(members)), directory.resolve(), console)


def is_folder_of_runs(directory: Path) -> bool:
    """Return whether a directory is neither a run nor a checkpoint, but has runs below it."""
    first = None if is_checkpoint(directory) else next(_runs(directory), None)
    return first is not None and first != directory


def find_runs(directory: Path, monitor: str | None = None, mode: str | None = None) -> list[Member]:
    """Return all runs below a directory with their origins and the problems of these."""
    places = sorted(path.resolve() for path in _runs(directory))
    members = {path: _member(path, monitor, mode) for path in places}
    return [attrs.evolve(member, problem=_problem(member, members)) for member in members.values()]


def _runs(directory: Path) -> Iterator[Path]:
    """Yield directories with checkpoints, including the directory itself."""
    for place, folders, _ in os.walk(directory):
        if any(step_of(Path(name)) is not None for name in folders):
            yield Path(place)
        hidden = [name for name in folders if name.startswith(".")]
        # In place, so that os.walk does not descend into the others.
        folders[:] = [
            name for name in folders if name not in hidden and not is_checkpoint(Path(place, name))
        ]


def _member(path: Path, monitor: str | None, mode: str | None) -> Member:
    aside = _ASIDE.fullmatch(path.name)
    run = path.parent if aside else path
    by = monitored(run, monitor, mode)
    store = Checkpoints(path, **by)
    steps = store.steps()
    entries = store.entries()
    best = best_step(entries, by, required=monitor is not None)
    measured = [step for step in sorted(entries) if by["monitor"] in entries[step].metrics]

    def of(step: int | None) -> dict[str, Any] | None:
        value = None if step is None else entries[step].metrics[by["monitor"]]
        return None if step is None else {"step": step, "value": value}

    return Member(
        path,
        *_origin(store, aside),
        (steps[0], steps[-1]) if steps else None,
        by["monitor"],
        of(best),
        of(measured[-1] if measured else None),
    )


def _origin(store: Checkpoints, aside: re.Match[str] | None) -> tuple[str, Path | None, int | None]:
    """Return kind, parent and step of a run."""
    if aside is not None:
        run = store.directory.parent
        before = [step for step in Checkpoints(run).steps() if step < int(aside[1])]
        return "set aside", run.resolve(), max(before, default=None)
    try:
        parent = parent_of(store)
    except FunctrainError:  # of a newer version, with an unknown origin
        parent = None
    if parent is None:
        return "run", None, None
    checkpoint = Path(parent)
    return "fork", checkpoint.parent.resolve(), step_of(checkpoint)


def _problem(member: Member, members: dict[Path, Member]) -> str | None:
    """Return what is wrong with the origin of a member, if anything is."""
    if member.parent is None:
        return None
    if not member.parent.is_dir():
        return f"{member.parent} is missing"
    if member.parent not in members:
        return f"{member.parent} is not below this directory"
    seen, at = [member.path], member.parent
    while at in members and at not in seen:
        seen.append(at)
        at = members[at].parent or Path()
    names = " <- ".join(path.name for path in [*seen, at])
    return f"it is its own ancestor: {names}" if at == member.path else None


def _in_order(members: list[Member]) -> Iterator[tuple[str, Member]]:
    """Yield each run below its parent, with the branches of the tree in front of it."""
    below: dict[Path | None, list[Member]] = {}
    for member in members:
        below.setdefault(member.parent if member.problem is None else None, []).append(member)

    def grown(member: Member, first: str, rest: str) -> Iterator[tuple[str, Member]]:
        yield first, member
        children = sorted(below.get(member.path, []), key=lambda each: each.step or 0)
        for child in children:
            fork, along = ("└── ", "    ") if child is children[-1] else ("├── ", "│   ")
            yield from grown(child, rest + fork, rest + along)

    for member in below.get(None, []):
        yield from grown(member, "", "")


def _print(rows: list[tuple[str, Member]], base: Path, console: Console) -> None:
    cells = (
        (
            output.cell(branch).append(_name(member, base), "bold"),
            _origin_text(member),
            "" if member.steps is None else " to ".join(map(str, dict.fromkeys(member.steps))),
            member.monitor if member.last else "",
            _measured(member.best),
            _measured(member.last),
        )
        for branch, member in rows
    )
    heads, spare = ("run", "origin", "checkpoints", "metric", "best", "last"), ("last", "metric")
    output.print_table(console, heads, cells, folded=heads[:2], spare=(*spare, "origin"))
    for _, member in rows:
        if member.problem is not None:
            output.print_lines(console, f"{_name(member, base)}: {member.problem}", style="red")


def _name(member: Member, base: Path) -> str:
    path = member.path
    short = path.name if path == base or member.kind == "set aside" else path.relative_to(base)
    return plain_text.printable(short)


def _measured(metric: dict[str, Any] | None) -> str:
    return "" if metric is None else f"{plain_text.number(metric['value'])} at {metric['step']}"


def _origin_text(member: Member) -> str:
    at = "" if member.step is None else f" at step {member.step}"
    if member.kind == "set aside":
        return f"set aside{at.replace('at', 'after')}"
    return f"forked{at}" if member.kind == "fork" else ""
