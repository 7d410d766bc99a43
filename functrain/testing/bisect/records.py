"""Compare the records in two run directories: digests, logs and common checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from functrain import tree
from functrain.checkpoint import Checkpoints, Manifest, read_manifest
from functrain.checkpoint.format.structure import decode_node
from functrain.errors import CheckpointCorruptError, CheckpointFormatError, NoCheckpointError
from functrain.listeners import digests
from functrain.metrics.log_file import FILE_NAME, read
from functrain.view.plain_text import apart

_UNREADABLE = (CheckpointCorruptError, CheckpointFormatError, NoCheckpointError)


@attrs.frozen
class Record:
    """The first step at which one kind of record differs.

    Attributes:
        step: the update after which it differs; the cause may be an earlier one, unless digests
            were written at each step. None for logs with the same values in other bytes.
        after: the last earlier step at which the record is equal in both, if any.
    """

    kind: str
    step: int | None
    text: str
    after: int | None = None


def records(first: Path, second: Path) -> list[Record]:
    """Return all records that differ: digests, then logs, then checkpoints."""
    found = [look(first, second) for look in (by_digests, by_logs, by_checkpoints)]
    return [record for record in found if record is not None]


def by_digests(first: Path, second: Path) -> Record | None:
    """Find the first difference in the hashes of the states, and name the parts that differ."""
    after = None
    ours, theirs = (
        {row["step"]: row for row in digests.read(directory)} for directory in (first, second)
    )
    for step in sorted(ours.keys() & theirs.keys()):
        if ours[step]["root"] != theirs[step]["root"]:
            parts = ", ".join(_parts(ours[step], theirs[step])) or "its structure"
            text = f"the digests part at step {step}{_since(after, step)}: {parts}"
            return Record("digests", step, text, after)
        after = step
    return None


def by_logs(first: Path, second: Path, whole: bool = False) -> Record | None:
    """Find the first value in the logs that differs, bit for bit.

    Only what both runs should have at their common steps is compared, unless ``whole``.
    """
    after = None
    ours, theirs = ({row["step"]: row for row in _rows(path)} for path in (first, second))
    for step in sorted(ours.keys() & theirs.keys()):
        one, other = ours[step], theirs[step]
        # The last step of a run is always evaluated; in a longer run it may not be.
        ends = not whole and step in (max(ours), max(theirs))
        names = [name for name in {**one, **other} if not ends or (name in one and name in other)]
        for name in names:
            if not tree.equal(one.get(name), other.get(name)):
                values = " and ".join(apart(one.get(name), other.get(name)))
                return Record(
                    "logs", step, f"the logs part at step {step}: {name} is {values}", after
                )
        after = step
    if whole and ours.keys() != theirs.keys():
        text = f"the logs have {len(ours)} and {len(theirs)} steps"
        return Record("logs", min(ours.keys() ^ theirs.keys()), text, after)
    if whole and ours and (first / FILE_NAME).read_bytes() != (second / FILE_NAME).read_bytes():
        return Record("logs", None, "the logs have the same values in other bytes", after)
    return None


def by_checkpoints(first: Path, second: Path) -> Record | None:
    """Find the first step for which both have a checkpoint, with different training states."""
    after = None
    for step, ours, theirs in common(first, second):
        if not is_same_training(ours, theirs):
            text = f"the checkpoints part at step {step}{_since(after, step)}"
            return Record("checkpoints", step, text, after)
        after = step
    return None


def common(first: Path, second: Path) -> Iterator[tuple[int, Manifest, Manifest]]:
    """Yield the manifests of both runs for their common steps, skipping unreadable ones."""
    stores = [Checkpoints(directory) for directory in (first, second)]
    for step in sorted(set(stores[0].steps()) & set(stores[1].steps())):
        try:
            ours, theirs = (read_manifest(store.path(step)) for store in stores)
        except _UNREADABLE:  # a damaged checkpoint cannot be compared
            continue
        yield step, ours, theirs


def is_same_training(first: Manifest, second: Manifest) -> bool:
    """Return whether the training states are the same, bit for bit, by the hashes of tensors.

    The rest of a run's checkpoint is ignored: the loop's bookkeeping, the states of loader and
    listeners. A checkpoint that is not of a run is compared as a whole.
    """
    ours, theirs = (_resolved(_training(each), each) for each in (first, second))
    return bool(ours == theirs)


def _training(manifest: Manifest) -> Any:
    node = decode_node(manifest.structure)
    children = {} if node is None else dict(node.children)
    return children.get("train", manifest.structure)


def _resolved(json: Any, manifest: Manifest) -> Any:
    """Return the structure with each tensor's hashes instead of its index."""
    if isinstance(json, dict):
        if "$tensor" in json:
            leaf = manifest.leaves[json["$tensor"]]
            return leaf.dtype, leaf.shape, leaf.hashes
        return {key: _resolved(child, manifest) for key, child in json.items()}
    if isinstance(json, list):
        return [_resolved(child, manifest) for child in json]
    return repr(json)  # Python has 1 == 1.0 == True


def _parts(one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of the state that differ between two rows of digests."""
    if one.get("batch") != other.get("batch"):
        yield "batch"
    ours, theirs = one.get("parts", {}), other.get("parts", {})
    yield from (name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))


def _since(after: int | None, step: int) -> str:
    """Describe since when two records differ."""
    return "" if after in (None, step - 1) else f" (the same at {after})"


def _rows(directory: Path) -> list[dict[str, Any]]:
    log = directory / FILE_NAME
    return [row for row in read(log) if "step" in row] if log.exists() else []
