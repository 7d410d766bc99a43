"""Copies of a run's checkpoints in a remote store, made as they are saved."""

from __future__ import annotations

from pathlib import Path

import attrs

from functrain.checkpoint.remote import RemoteCheckpoints
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointReadError,
    CheckpointWriteError,
    CheckpointWriteWarning,
    NoCheckpointError,
)
from functrain.errors.warning import warn
from functrain.training import events
from functrain.training.metrics_log import FILE_NAME

# The local checkpoint may be gone already, where many are saved and few are kept.
_NOT_READ = (CheckpointReadError, CheckpointCorruptError, NoCheckpointError)


def _as_store(store: RemoteCheckpoints | str) -> RemoteCheckpoints:
    return RemoteCheckpoints(store) if isinstance(store, str) else store


@attrs.frozen
class Mirror:
    """A listener that copies each checkpoint to a remote store as soon as it is on the disk.

    The log of the run goes with it, so that :meth:`RemoteCheckpoints.fetch` brings back all that
    ``fit`` needs to go on. Training waits while a copy is made. A copy that fails is told in a
    :class:`CheckpointWriteWarning`; the next checkpoint is tried again.

    Args:
        store: the remote store, or its URL; as a URL all checkpoints are kept there.
        required: a copy that fails ends the run with an error instead.

    Example:
        >>> import functrain as ft, tempfile, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> mirror = Mirror("memory://remote/mirrored")
        >>> data, directory = [torch.ones(4, 2)] * 3, tempfile.mkdtemp()
        >>> _ = ft.fit(program, data, until="3 steps", directory=directory, listeners=[mirror])
        >>> mirror.store.steps()
        [3]
    """

    store: RemoteCheckpoints = attrs.field(converter=_as_store)
    required: bool = attrs.field(default=False, kw_only=True)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Find out before the first step whether a package is missing or the URL makes no sense."""
        self.store.objects()

    def on_checkpoint_saved(self, event: events.CheckpointSaved) -> None:
        """Copy it, as it is, and the log."""
        log = event.path.parent / FILE_NAME
        try:
            self.store.upload(event.path, log if log.exists() else None)
        except (CheckpointWriteError, *_NOT_READ) as error:
            if self.required:
                raise
            self._warn(event.path, error)

    def _warn(self, path: Path, error: Exception) -> None:
        message = f"{path} is on the disk, but was not copied: {error}"
        warn(message, CheckpointWriteWarning)
