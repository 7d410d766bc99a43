"""Download the first intact checkpoint of a remote store, and prune the others."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.loading import is_intact, verify
from functrain.checkpoint.pruning import warn_kept, warn_skipped
from functrain.checkpoint.remote.attempts import (
    Attempt,
    attempts,
    discard,
    discard_leftover,
    receive,
    receive_log,
    receive_manifest,
)
from functrain.checkpoint.remote.object_store import ObjectStore
from functrain.checkpoint.retention import Best, Rule, prunable
from functrain.checkpoint.run_directory import list_steps, locked, step_name
from functrain.checkpoint.storage.commit import commit
from functrain.checkpoint.storage.files import opened, replace_file, sync, system_errors
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointReadError,
    CheckpointWriteError,
    FunctrainError,
    LogError,
    NoCheckpointError,
)
from functrain.metrics.log_file import FILE_NAME

_LISTINGS = 4
T = TypeVar("T")


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


@contextlib.contextmanager
def downloaded(
    objects: ObjectStore, attempt: Attempt, take: Callable[[ObjectStore, Attempt, Path], Manifest]
) -> Iterator[tuple[Path, Manifest]]:
    """Yield a temporary directory with a download; errors in the block name its URL."""
    with tempfile.TemporaryDirectory(prefix="functrain-", ignore_cleanup_errors=True) as top:
        place = Path(top) / step_name(attempt.step)
        place.mkdir()
        try:
            yield place, take(objects, attempt, place)
        except FunctrainError as error:
            error.add_note(f"downloaded from {objects.url}/{attempt.name}")
            raise


def fetch(objects: ObjectStore, directory: Path, listed: Callable[[], list[Attempt]]) -> Path:
    """Download the newest intact checkpoint; see ``RemoteCheckpoints.fetch``."""
    with locked(directory):
        newest_first = reversed(list_steps(directory))
        places = (directory / step_name(step) for step in newest_first)
        here = next((place for place in places if is_intact(place)), None)

        def use(attempt: Attempt) -> Path:
            place = directory / step_name(attempt.step)
            # Compare lengths first: a step can have more than eight digits.
            if here is not None and (len(here.name), here.name) >= (len(place.name), place.name):
                return here
            return _download(objects, attempt, place)

        try:
            return first_intact(objects, listed, use)
        except NoCheckpointError:
            if here is None:
                raise
            return here


def _first_intact(objects: ObjectStore, listed: list[Attempt], use: Callable[[Attempt], T]) -> T:
    damages = []
    for attempt in listed:
        try:
            return use(attempt)
        except CheckpointCorruptError as damage:
            damages.append(f"{attempt.name}: {damage}")
            warn_skipped(f"{objects.url}/{attempt.name}", damage)
    every = "\n".join(f"  {damage}" for damage in damages)
    raise CheckpointCorruptError(f"every checkpoint in {objects.url} is damaged:\n{every}")


def _download(objects: ObjectStore, attempt: Attempt, place: Path) -> Path:
    def fill(temporary: Path) -> None:
        with system_errors(f"{objects.url}/{attempt.name}", CheckpointReadError):
            receive(objects, attempt, temporary)
            verify(temporary)
            rows = receive_log(objects, attempt)
        for file in temporary.iterdir():
            with opened(file) as descriptor:
                sync(descriptor)
        if rows is not None:
            _place_log(place.parent / FILE_NAME, rows)

    with system_errors(str(place), CheckpointWriteError):
        # A checkpoint that is already there is damaged: an intact one would not be downloaded.
        commit(place, fill=fill, check=lambda present: None)
    return place


def _place_log(path: Path, rows: bytes) -> None:
    """Replace a log by its continuation; leave a longer one for ``fit`` to truncate."""
    present = path.read_bytes() if path.exists() else b""
    if present.startswith(rows):
        return
    if not rows.startswith(present):
        raise LogError(
            f"{path} is not the beginning of the log in the remote store, so it belongs to another "
            "run or to another branch of this one. Fetch into an empty directory"
        )
    replace_file(path, rows, locked=True)


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
