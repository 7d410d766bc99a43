"""Choose among the checkpoints of a remote store: which to read, and which to remove."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Sequence
from typing import TypeVar

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
from functrain.checkpoint.retention import Best, Rule, prunable
from functrain.errors import CheckpointCorruptError, CheckpointFormatError, NoCheckpointError

_LISTINGS = 4
T = TypeVar("T")
Entries = dict[int, tuple[Attempt, Entry]]


def candidates(objects: ObjectStore, which: int | str | None, best: Best) -> list[Attempt]:
    """Return the attempts that match ``which``, at least one, in the order to try them."""
    if which == "best":
        found, detail = ranked(objects, best), f" with a finite metric {best.metric!r}"
    elif which in (None, "latest"):
        found, detail = [each for each in attempts(objects) if each.committed], ""
    elif isinstance(which, int):
        found = [each for each in attempts(objects, which) if each.committed][:1]
        detail = f" of step {which}"
    else:
        raise ValueError(f'expected which to be "latest", "best" or a step, got {which!r}')
    if not found:
        raise NoCheckpointError(errno.ENOENT, f"there is no checkpoint{detail} in {objects.url}")
    return found


def ranked(objects: ObjectStore, best: Best) -> list[Attempt]:
    """Return the attempts that have the metric, from best to worst."""
    said = entries(objects, attempts(objects))
    order = best.ranked({step: entry for step, (_, entry) in said.items()})
    return [said[step][0] for step in order]


def first_intact(
    objects: ObjectStore, listed: Callable[[], list[Attempt]], use: Callable[[Attempt], T]
) -> T:
    """Use the first attempt that is not damaged; list again if one was removed meanwhile."""
    for _ in range(_LISTINGS - 1):
        now = listed()
        with contextlib.suppress(NoCheckpointError):
            return _first_intact(objects, now, use)
    return _first_intact(objects, listed(), use)


def _first_intact(objects: ObjectStore, listed: list[Attempt], use: Callable[[Attempt], T]) -> T:
    damages = []
    for attempt in listed:
        try:
            return use(attempt)
        except CheckpointCorruptError as damage:
            damages.append(f"  {attempt.name}: {damage}")
            warn_skipped(f"{objects.url}/{attempt.name}", damage)
    every = "\n".join(damages)
    raise CheckpointCorruptError(f"every checkpoint in {objects.url} is damaged:\n{every}")


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
            manifest = receive_manifest(objects, attempt)
        except (CheckpointCorruptError, CheckpointFormatError) as damage:
            warn_skipped(f"{objects.url}/{attempt.name}", damage)
        except NoCheckpointError:  # another process has just removed it
            continue
        else:
            entry = Entry.of(manifest.metrics, manifest.saved_at, manifest.info)
            said[attempt.step] = attempt, entry
    return said


def prunable_steps(said: Entries, rules: Sequence[Rule], just_saved: int | None) -> list[int]:
    """Return the steps that no rule keeps; the newest complete one is always kept."""
    return prunable({step: entry for step, (_, entry) in said.items()}, rules, just_saved)


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
    leaving = prunable_steps(said, rules, None if just_saved is None else just_saved.step)
    last = {step: attempt for step, (attempt, _) in said.items()}
    if just_saved is not None:
        last[just_saved.step] = max(just_saved, last.get(just_saved.step, just_saved))
    removed = []
    for step in sorted({attempt.step for attempt in found}):
        # Oldest first, so that an older attempt never becomes the step's checkpoint again.
        mine = sorted(attempt for attempt in found if attempt.step == step)
        if _clear(objects, mine, last.get(step), whole=step in leaving) and step in leaving:
            removed.append(step)
    return removed


def _clear(objects: ObjectStore, mine: list[Attempt], last: Attempt | None, whole: bool) -> bool:
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
