"""Compare saved trees or runs by their manifests, reading only the leaves that differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as Location
from typing import Any

import attrs
import orjson

from functrain import tree
from functrain.checkpoint import Manifest, verify
from functrain.checkpoint.outline import Branch, Entry, Scalar, TensorLeaf, outline, read_tensor
from functrain.cli.checkpoint_argument import ChosenCheckpoint, open_checkpoint
from functrain.metrics.log_file import FILE_NAME, read
from functrain.testing.bisect.records import by_digests, common
from functrain.tree import Path
from functrain.tree.elements import Distance, distance


@attrs.frozen(eq=False)
class Difference:
    """One place where two trees differ.

    Attributes:
        path: the path in the trees.
        kind: ``missing`` (in the second), ``unexpected`` (only there), ``type``, ``dtype``,
            ``shape`` or ``value``.
        detail: both sides in words.
        elements: number of elements of a tensor of equal dtype and shape.
        distance: the distance of such tensors.
    """

    path: Path
    kind: str
    detail: str
    elements: int = 0
    distance: Distance | None = None


@attrs.frozen(eq=False)
class FirstDifference:
    """The first difference in a record of two runs: a text, and the step if there is one."""

    text: str
    step: int | None = None


@attrs.frozen(eq=False)
class Comparison:
    """Two checkpoints, or two runs.

    Attributes:
        targets: the compared checkpoints.
        differences: the differences of the trees.
        of_runs: whether two runs are compared.
        logs: the first difference of their logs.
        digests: the first difference of their state hashes.
        step: the first step with different checkpoints.
    """

    targets: list[ChosenCheckpoint]
    differences: list[Difference]
    of_runs: bool = False
    logs: FirstDifference | None = None
    digests: FirstDifference | None = None
    step: int | None = None

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences and self.logs is None and self.digests is None


def differences(
    first: ChosenCheckpoint, second: ChosenCheckpoint, measured: bool = True
) -> Iterator[Difference]:
    """Yield the bitwise differences of two checkpoints, in the order of the first.

    It compares the hashes in the manifests, which match the bytes if a checkpoint verifies.

    Args:
        first: the expected checkpoint.
        second: the other checkpoint.
        measured: read tensors that differ, one pair at a time, to measure their distance.
    """
    theirs = {entry.path: entry for entry in outline(second.manifest)}
    seen: set[Path] = set()
    within: Path | None = None
    for ours in outline(first.manifest):
        seen.add(ours.path)
        if within is not None and ours.path[: len(within)] == within:
            continue
        within = None
        found = _between(ours, theirs.get(ours.path), first, second, measured)
        if found is not None:
            within = ours.path if found.kind != "value" else None
            yield found
            if found.kind == "type":
                seen |= {path for path in theirs if path[: len(ours.path)] == ours.path}
    yield from _unexpected(list(theirs), seen)


def compared(first: Location, second: Location) -> Comparison:
    """Compare two checkpoints or runs by their files."""
    targets = [_verified(open_checkpoint(path)) for path in (first, second)]
    found = list(differences(targets[0], targets[1]))
    runs = [target.run for target in targets if target.run is not None]
    if len(runs) < 2:
        return Comparison(targets, found)
    digests = by_digests(*runs)
    return Comparison(
        targets,
        found,
        of_runs=True,
        logs=first_difference_of_logs(*(run / FILE_NAME for run in runs)),
        digests=None if digests is None else FirstDifference(digests.text, digests.step),
        step=first_different_step(*runs) if found else None,
    )


def first_difference_of_logs(first: Location, second: Location) -> FirstDifference | None:
    """Return the first difference of two logs, ``None`` for the same bytes."""
    rows = [read(log) if log.exists() else [] for log in (first, second)]
    for ours, theirs in zip(*rows, strict=False):
        for name in {**ours, **theirs}:
            if tree.diff(ours.get(name), theirs.get(name)):
                values = f"{ours.get(name)!r} and {theirs.get(name)!r}"
                step = ours.get("step")
                return FirstDifference(f"the logs part at step {step}: {name} is {values}", step)
    lengths = [len(log) for log in rows]
    if lengths[0] != lengths[1]:
        return FirstDifference(
            f"the logs have {lengths[0]} and {lengths[1]} steps", min(lengths) + 1
        )
    if lengths[0] and first.read_bytes() != second.read_bytes():
        return FirstDifference("the logs have the same values in other bytes")
    return None


def first_different_step(first: Location, second: Location) -> int | None:
    """Return the first step at which the manifests of two runs differ."""
    different = (step for step, *pair in common(first, second) if not is_same(*pair))
    return next(different, None)


def is_same(first: Manifest, second: Manifest) -> bool:
    """Return whether two manifests describe the same tree, without reading payload."""
    ours, theirs = (ChosenCheckpoint(Location(), manifest) for manifest in (first, second))
    return next(differences(ours, theirs, measured=False), None) is None


def _verified(target: ChosenCheckpoint) -> ChosenCheckpoint:
    if target.run is None:  # the newest checkpoint of a run is already verified
        verify(target.path)
    return target


def _unexpected(theirs: list[Path], seen: set[Path]) -> Iterator[Difference]:
    within: Path | None = None
    for path in theirs:
        if path in seen or (within is not None and path[: len(within)] == within):
            continue
        within = path
        yield Difference(path, "unexpected", "only in the second")


def _between(
    ours: Entry,
    theirs: Entry | None,
    first: ChosenCheckpoint,
    second: ChosenCheckpoint,
    measured: bool,
) -> Difference | None:
    if theirs is None:
        return Difference(ours.path, "missing", "only in the first")
    if isinstance(ours, TensorLeaf) and isinstance(theirs, TensorLeaf):
        return _tensors(ours, theirs, first, second, measured)
    if isinstance(ours, Scalar) and isinstance(theirs, Scalar):
        return _scalars(ours, theirs)
    one, other = _described(ours), _described(theirs)
    if one == other and isinstance(ours, Branch) and isinstance(theirs, Branch):
        # Such as the size of a sparse tensor, which is not in its parts.
        one, other = (orjson.dumps(entry.scalars).decode() for entry in (ours, theirs))
    return None if one == other else Difference(ours.path, "type", f"{one} and {other}")


def _described(entry: Entry) -> str:
    if isinstance(entry, Branch):
        return entry.kind if entry.name is None else entry.name
    return "tensor" if isinstance(entry, TensorLeaf) else _type_of(entry)


def _type_of(entry: Scalar) -> str:
    return "None" if entry.value is None else type(entry.value).__name__


def _scalars(ours: Scalar, theirs: Scalar) -> Difference | None:
    # JSON distinguishes 1, 1.0 and True, and 0.0 and -0.0.
    if orjson.dumps(ours.json) == orjson.dumps(theirs.json):
        return None
    if type(ours.value) is not type(theirs.value):
        detail = f"{_type_of(ours)} and {_type_of(theirs)}"
        return Difference(ours.path, "type", f"{detail}: {ours.value!r} and {theirs.value!r}")
    return Difference(ours.path, "value", f"{ours.value!r} and {theirs.value!r}")


def _tensors(
    ours: TensorLeaf,
    theirs: TensorLeaf,
    first: ChosenCheckpoint,
    second: ChosenCheckpoint,
    measured: bool,
) -> Difference | None:
    one, other = ours.leaf, theirs.leaf
    if one.dtype != other.dtype:
        return Difference(ours.path, "dtype", f"dtype {one.dtype} and {other.dtype}")
    if one.shape != other.shape:
        return Difference(ours.path, "shape", f"shape {list(one.shape)} and {list(other.shape)}")
    if one.hashes == other.hashes:
        return None
    if not measured:
        return Difference(ours.path, "value", "other bytes")
    values: list[Any] = [
        read_tensor(target.path, target.manifest, leaf)
        for target, leaf in ((first, one), (second, other))
    ]
    found, elements = distance(*values), values[0].numel()
    return Difference(
        ours.path, "value", f"{found.count:,} of {elements:,} elements", elements, found
    )
