"""``functrain diff``: compare two runs or checkpoints, and find where they first differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from functrain.cli import output
from functrain.cli.comparison import Comparison, compare
from functrain.errors import ConfigurationError
from functrain.testing.bisect import Parting, bisect
from functrain.tree import Difference, path_string


def diff(
    first: Path, second: Path, console: Console, json: bool = False, replay: bool = False
) -> bool:
    """Compare two checkpoints, or the newest ones of two runs, their digests and their logs.

    It ignores metrics, versions and save times, and compares every bit of the trees.

    ``replay`` reruns both from their last common state, to find the first difference.
    """
    found = compare(first, second)
    made = _replay(found) if replay and not found.equal else None
    if json:
        output.print_json(_document(found, made))
    elif found.equal:
        console.print(_equal_text(found))
    else:
        _print(found, made, console)
    return found.equal


def _replay(found: Comparison) -> Parting | None:
    if not found.of_runs:
        raise ConfigurationError("--replay reruns runs: name two runs, not checkpoints")
    first, second = (target.run or target.path for target in found.targets)
    return bisect(first, second)


def _equal_text(found: Comparison) -> str:
    manifest = found.targets[0].manifest
    if found.of_runs:
        return f"the runs are equal: state and log of {manifest.step} steps, bit for bit"
    return f"the checkpoints are equal: {len(manifest.leaves):,} tensors, bit for bit"


def _print(found: Comparison, made: Parting | None, console: Console) -> None:
    lines = [record.text for record in (found.digests, found.logs) if record is not None]
    if found.step is not None:
        lines.append(f"the checkpoints part at step {found.step}, of those both runs have")
    steps = [target.manifest.step for target in found.targets]
    if steps[0] != steps[1]:
        lines.append(f"the checkpoints compared are of steps {steps[0]} and {steps[1]}")
    replay = [] if made is None else str(attrs.evolve(made, records=())).splitlines()
    leaves = str(found.differences).splitlines() if found.differences else []
    output.print_lines(console, *lines, *replay, *leaves)


def _document(found: Comparison, made: Parting | None) -> dict[str, Any]:
    return {
        "equal": found.equal,
        "paths": [target.path for target in found.targets],
        "steps": [target.manifest.step for target in found.targets],
        "digests_part_at": None if found.digests is None else found.digests.step,
        "digests": None if found.digests is None else found.digests.text,
        "logs_part_at": None if found.logs is None else found.logs.step,
        "logs": None if found.logs is None else found.logs.text,
        "checkpoints_part_at": found.step,
        "replay": None if made is None else _place(made),
        "differences": [_difference(each) for each in found.differences],
    }


def _difference(found: Difference) -> dict[str, Any]:
    measured = found.elements is not None
    return {
        "path": path_string(found.path),
        "kind": found.kind,
        "detail": found.detail,
        "elements": found.elements,
        "differ": found.count if measured else None,
        "max_abs": found.max_abs if measured else None,
        "ulps": found.ulps,
    }


def _place(made: Parting) -> dict[str, Any]:
    first = made.differences[0] if made.differences else None
    index = None if first is None else first.index
    return {
        "from_step": made.start,
        "step": made.step,
        "part": made.part,
        "entered": made.entered,
        "leaf": made.leaf or None,
        "detail": made.detail or None,
        "index": None if index is None else list(index),
        "values": None if first is None or index is None else [first.first, first.second],
        "ulps": None if first is None or index is None else first.ulps,
    }
