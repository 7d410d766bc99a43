"""Copy a run's checkpoints to a remote store as they are saved."""

from __future__ import annotations

import attrs

from functrain.checkpoint.remote import RemoteCheckpoints
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointReadError,
    CheckpointWriteError,
    CheckpointWriteWarning,
    NoCheckpointError,
)
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.metrics.log_file import FILE_NAME
from functrain.training import events

# Pruning may already have removed the local checkpoint.
_NOT_READ = (CheckpointReadError, CheckpointCorruptError, NoCheckpointError)


def _as_store(store: RemoteCheckpoints | str) -> RemoteCheckpoints:
    return RemoteCheckpoints(store) if isinstance(store, str) else store


@explained
@attrs.frozen
class Mirror:
    """A listener that copies each checkpoint to a remote store as soon as it is on the disk.

    It copies the log as well, so :meth:`RemoteCheckpoints.fetch` brings back everything that
    ``fit`` needs to resume. Training waits during the copy. If a copy fails, the listener warns
    with :class:`CheckpointWriteWarning` and tries again with the next checkpoint.

    Args:
        store: the remote store, or its URL. A store given as a URL keeps all checkpoints.
        required: raise the error if a copy fails.

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
        """Check before the first step that the package is installed and the URL is valid."""
        self.store.objects()

    def on_checkpoint_saved(self, event: events.CheckpointSaved) -> None:
        """Copy the checkpoint and the log."""
        log = event.path.parent / FILE_NAME
        try:
            self.store.upload(event.path, log if log.exists() else None)
        except (CheckpointWriteError, *_NOT_READ) as error:
            if self.required:
                raise
            message = f"{event.path} was saved, but not copied: {error}"
            warn(message, CheckpointWriteWarning)
