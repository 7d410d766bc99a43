"""Prune the checkpoints of a remote store and delete what interrupted uploads left."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.pruning import warn_kept, warn_skipped
from functrain.checkpoint.remote.attempts import (
    Attempt,
    attempts,
    discard,
    discard_leftover,
    receive_manifest,
)
from functrain.checkpoint.remote.object_store import ObjectStore
from functrain.checkpoint.retention import Rule, prunable
from functrain.errors import CheckpointCorruptError, CheckpointFormatError, NoCheckpointError

Entries = dict[int, tuple[Attempt, Entry]]


def entries(objects: ObjectStore, found: Sequence[Attempt]) -> Entries:
    """Return the last complete attempt of each step with its metrics and time.

    An attempt is complete if its manifest verifies and all payload files have the right length.
    Others are skipped with a warning.
    """
    said: Entries = {}
    for attempt in found:
        if not attempt.committed or attempt.step in said:
            continue
        try:
            said[attempt.step] = attempt, _entry(objects, attempt)
        except (CheckpointCorruptError, CheckpointFormatError) as damage:
            warn_skipped(f"{objects.url}/{attempt.name}", damage)
        except NoCheckpointError:  # another process has just removed it
            continue
    return said


def prunable_steps(
    said: Entries, rules: Sequence[Rule], just_saved: Attempt | None = None
) -> list[int]:
    """Return the steps that no rule keeps; the newest complete one is always kept."""
    plain = {step: entry for step, (_, entry) in said.items()}
    return prunable(plain, rules, None if just_saved is None else just_saved.step)


def prune(
    objects: ObjectStore, rules: Sequence[Rule], just_saved: Attempt | None = None
) -> list[int]:
    """Remove steps that no rule keeps, replaced attempts, and incomplete ones older than a day.

    If an attempt cannot be read or removed, it stays, with a warning.
    """
    try:
        found = attempts(objects)
        said = entries(objects, found) if rules or just_saved is None else {}
    except OSError as error:
        warn_kept(objects.url, error)
        return []
    leaving = prunable_steps(said, rules, just_saved)
    last = {step: attempt for step, (attempt, _) in said.items()}
    if just_saved is not None:
        last[just_saved.step] = max(just_saved, last.get(just_saved.step, just_saved))
    removed = []
    for step in sorted({attempt.step for attempt in found}):
        # Oldest first, so that an older attempt never becomes the step's checkpoint again.
        mine = sorted(attempt for attempt in found if attempt.step == step)
        if _cleared(objects, mine, last.get(step), whole=step in leaving) and step in leaving:
            removed.append(step)
    return removed


def _cleared(objects: ObjectStore, mine: list[Attempt], last: Attempt | None, whole: bool) -> bool:
    """Remove all attempts of a step but the last, and with ``whole`` the last one too."""
    for attempt in mine:
        replaced = last is not None and (attempt < last or (whole and attempt == last))
        try:
            if attempt.committed and replaced:
                discard(objects, attempt)
            elif not attempt.committed and (replaced or attempt.old):
                discard_leftover(objects, attempt)
        except OSError as error:
            warn_kept(f"{objects.url}/{attempt.name}", error)
            return False
    return True


def _entry(objects: ObjectStore, attempt: Attempt) -> Entry:
    with tempfile.TemporaryDirectory(prefix="functrain-") as place:
        manifest = receive_manifest(objects, attempt, Path(place))
    return Entry.of(manifest.metrics, manifest.saved_at, manifest.info)
