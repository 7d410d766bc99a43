"""``functrain diff``: whether two runs or checkpoints are the same, and where they part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from functrain import tree
from functrain.checkpoint import Checkpoints, read_manifest, verify
from functrain.cli import output
from functrain.cli.comparing import Difference, differences, is_same
from functrain.cli.targets import Target, open_target
from functrain.errors import FunctrainError
from functrain.history import FILE_NAME, read
from functrain.tree import path_string

# Characters of the column that may go on in the next line, so that names get the room.
_MOST_WIDE = 20


@attrs.frozen(eq=False)
class Parting:
    """Where the logs of two runs part: the step, if they do at one, and what to say."""

    text: str
    step: int | None = None


def diff(first: Path, second: Path, console: Console, json: bool = False) -> bool:
    """Compare two checkpoints, or the newest ones of two runs and their logs.

    Metrics, versions and times of saving do not count; every bit of the trees does.

    Args:
        first: a run, ``RUN@STEP``, or a checkpoint.
        second: another.
        console: where to print.
        json: print a document instead.

    Returns:
        Whether they are equal.

    Raises:
        NoCheckpointError: there is none.
        CheckpointCorruptError: what is to be compared is damaged.
    """
    targets = ours, theirs = [_sound(open_target(path)) for path in (first, second)]
    found = list(differences(ours, theirs))
    runs = [target.run for target in targets if target.run is not None]
    of_runs = len(runs) == 2
    parting = parting_of_logs(*(run / FILE_NAME for run in runs)) if of_runs else None
    step = parting_of_checkpoints(*runs) if of_runs and found else None
    equal = not found and parting is None
    if json:
        output.print_json(_document(targets, found, parting, step))
    elif equal:
        console.print(_equal(ours, of_runs))
    else:
        _print(targets, found, parting, step, console)
    return equal


def parting_of_logs(first: Path, second: Path) -> Parting | None:
    """Where two logs part; nothing if they are the same bytes."""
    rows = [read(log) if log.exists() else [] for log in (first, second)]
    for ours, theirs in zip(*rows, strict=False):
        for name in {**ours, **theirs}:
            if tree.diff(ours.get(name), theirs.get(name)):
                values = f"{ours.get(name)!r} and {theirs.get(name)!r}"
                step = ours.get("step")
                return Parting(f"the logs part at step {step}: {name} is {values}", step)
    lengths = [len(log) for log in rows]
    if lengths[0] != lengths[1]:
        return Parting(f"the logs have {lengths[0]} and {lengths[1]} steps", min(lengths) + 1)
    if lengths[0] and first.read_bytes() != second.read_bytes():
        return Parting("the logs have the same values in other bytes")
    return None


def parting_of_checkpoints(first: Path, second: Path) -> int | None:
    """The first step of which two runs have checkpoints that differ, by their manifests."""
    stores = ours, theirs = Checkpoints(first), Checkpoints(second)
    for step in sorted(set(ours.steps()) & set(theirs.steps())):
        try:
            manifests = [read_manifest(store.path(step)) for store in stores]
        except FunctrainError:  # a damaged one tells nothing of where the runs part
            continue
        if not is_same(*manifests):
            return step
    return None


def _sound(target: Target) -> Target:
    if target.run is None:  # of a run, the choice was made by verifying
        verify(target.path)
    return target


def _equal(ours: Target, of_runs: bool) -> str:
    if of_runs:
        return f"the runs are equal: state and log of {ours.manifest.step} steps, bit for bit"
    return f"the checkpoints are equal: {len(ours.manifest.leaves):,} tensors, bit for bit"


def _print(
    targets: list[Target],
    found: list[Difference],
    parting: Parting | None,
    step: int | None,
    console: Console,
) -> None:
    steps = [target.manifest.step for target in targets]
    lines = [] if parting is None else [parting.text]
    if step is not None:
        lines.append(f"the checkpoints part at step {step}, of those both runs have")
    if steps[0] != steps[1]:
        lines.append(f"the checkpoints compared are of steps {steps[0]} and {steps[1]}")
    if found:
        first = found[0]
        count = "1 place differs" if len(found) == 1 else f"{len(found):,} places differ"
        lines.append(f"{count}, first {path_string(first.path)}: {_sentence(first)}")
    for line in lines:
        console.print(output.cell(line), soft_wrap=True)
    if found:
        console.print()
        console.print(_table(found))


def _sentence(found: Difference) -> str:
    if found.distance is None:
        return found.detail
    gap, ulps = found.distance.max_abs, found.distance.ulps
    most = "" if gap is None else f", at most by {gap!r}"
    steps = "" if ulps is None else f" ({ulps:,} ulp{'' if ulps == 1 else 's'})"
    return f"{found.detail} differ{most}{steps}"


def _table(found: list[Difference]) -> Any:
    table = output.table(
        *("leaf", "difference", "max abs", "ulps"),
        right=("max abs", "ulps"),
        folded=("leaf", "difference"),
        most={"difference": _MOST_WIDE},
    )
    for each in found:
        gap = None if each.distance is None else each.distance.max_abs
        ulps = None if each.distance is None else each.distance.ulps
        table.add_row(
            output.cell(path_string(each.path)),
            output.cell(each.detail if each.distance is None else _share(each)),
            "" if gap is None else f"{gap:.3g}",
            "" if ulps is None else _short(ulps),
        )
    return table


def _share(found: Difference) -> str:
    """How many elements differ, without the noun that the column has."""
    return found.detail.removesuffix(" elements")


def _short(count: int) -> str:
    return f"{count:,}" if count < 10**7 else f"{count:.2e}"


def _document(
    targets: list[Target], found: list[Difference], parting: Parting | None, step: int | None
) -> dict[str, Any]:
    return {
        "equal": not found and parting is None,
        "paths": [target.path for target in targets],
        "steps": [target.manifest.step for target in targets],
        "logs_part_at": None if parting is None else parting.step,
        "logs": None if parting is None else parting.text,
        "checkpoints_part_at": step,
        "differences": [
            {
                "path": path_string(each.path),
                "kind": each.kind,
                "detail": each.detail,
                "elements": each.elements or None,
                "differ": None if each.distance is None else each.distance.count,
                "max_abs": None if each.distance is None else each.distance.max_abs,
                "ulps": None if each.distance is None else each.distance.ulps,
            }
            for each in found
        ],
    }
