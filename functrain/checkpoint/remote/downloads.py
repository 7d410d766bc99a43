"""Download a checkpoint of a remote store: to a temporary place, or into a run directory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from functrain.checkpoint.loading import verify
from functrain.checkpoint.remote.attempts import Attempt, receive, receive_log
from functrain.checkpoint.remote.object_store import ObjectStore
from functrain.checkpoint.run_directory import step_name
from functrain.checkpoint.storage.commit import commit
from functrain.checkpoint.storage.files import opened, replace_file, sync, system_errors
from functrain.errors import CheckpointReadError, CheckpointWriteError, FunctrainError, LogError
from functrain.metrics.log_file import FILE_NAME


@contextlib.contextmanager
def named_in_errors(objects: ObjectStore, attempt: Attempt) -> Iterator[None]:
    try:
        yield
    except FunctrainError as error:
        error.add_note(f"downloaded from {objects.url}/{attempt.name}")
        raise


@contextlib.contextmanager
def download(
    objects: ObjectStore, attempt: Attempt, wants: Callable[[str], bool] | None = None
) -> Iterator[Path]:
    """Yield a temporary directory with a download; errors in the block name its URL."""
    with tempfile.TemporaryDirectory(prefix="functrain-", ignore_cleanup_errors=True) as top:
        place = Path(top) / step_name(attempt.step)
        place.mkdir()
        with named_in_errors(objects, attempt):
            receive(objects, attempt, place, wants)
            yield place


def download_into_run(objects: ObjectStore, attempt: Attempt, place: Path) -> Path:
    """Download an attempt to its place in a run directory, and its log beside it."""

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
