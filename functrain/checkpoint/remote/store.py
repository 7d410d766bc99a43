"""The checkpoints under a URL, with the methods of ``Checkpoints``."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.loading import is_intact, read, verify
from functrain.checkpoint.path_options import PathOptions
from functrain.checkpoint.publishing import write
from functrain.checkpoint.ranks import World, world_of
from functrain.checkpoint.remote import choosing
from functrain.checkpoint.remote.attempts import (
    Attempt,
    attempts,
    receive_manifest,
    send,
)
from functrain.checkpoint.remote.downloads import download, download_into_run, named_in_errors
from functrain.checkpoint.remote.object_store import ObjectStore, without_secrets
from functrain.checkpoint.retention import Retention
from functrain.checkpoint.run_directory import list_steps, locked, step_name
from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.checkpoint.storage.files import system_errors
from functrain.errors import (
    CheckpointReadError,
    CheckpointWriteError,
    NoCheckpointError,
    UnsupportedError,
)
from functrain.errors.paths import absolute
from functrain.tree import Tree


def _absolute(url: str) -> str:
    return url if not isinstance(url, str) or "://" in url else str(absolute(url))


@attrs.frozen
class RemoteCheckpoints(Retention):
    """The checkpoints under a URL.

    An instance is an immutable value without state of its own. A checkpoint is a directory
    ``step-00000120.CLOCK.TOKEN`` with the files of a local one. It exists once its manifest does,
    which is written last. No object is ever overwritten, and any number of processes may save and
    read at once. Durability is that of the store. What to keep and what is best are options as for
    :class:`functrain.Checkpoints`.

    Args:
        url: such as ``s3://bucket/run``. Missing parents are created if the store allows it.
        storage_options: what fsspec passes to the file system: credentials, endpoints.

    Example:
        >>> import torch
        >>> store = RemoteCheckpoints("memory://remote/example", keep_last=2)
        >>> for step, loss in enumerate([0.3, 0.1, 0.4, 0.2]):
        ...     _ = store.save({"w": torch.full((2,), loss)}, step=step, metrics={"loss": loss})
        >>> store.steps(), store.best()
        ([1, 2, 3], 1)
        >>> store.restore("best")[0]
        {'w': tensor([0.1000, 0.1000])}
    """

    url: str = attrs.field(
        converter=_absolute, validator=attrs.validators.instance_of(str), repr=without_secrets
    )
    storage_options: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True, repr=False)

    def objects(self) -> ObjectStore:
        """Return the objects under the URL, without using the network yet.

        Raises:
            MissingExtraError: a package is not installed.
            OSError: fsspec does not support this kind of URL.
        """
        return ObjectStore.of(self.url, self.storage_options or {})

    def save(
        self, tree: Tree, *, step: int, metrics: Mapping[str, Any] | None = None, info: Any = None
    ) -> str:
        """Save a tree under its step and prune older checkpoints; return the URL.

        The checkpoint is written to a local temporary directory first. An existing one of this
        step is replaced after the upload.

        Raises:
            CheckpointWriteError: the upload failed; older checkpoints are unchanged.
            The other errors of :meth:`functrain.Checkpoints.save`.
        """
        self._best.check(metrics or {})
        if world_of(tree) is not None:
            raise self._not_together()
        return self.write(snapshot(tree, info=info, step=step, metrics=metrics))

    def write(
        self, snap: Snapshot, world: World | None = None, first: Callable[[], None] | None = None
    ) -> str:
        """Write a snapshot; the second half of :meth:`save`."""
        if world is not None:
            raise self._not_together()
        if first is not None:
            first()
        with self._writing(), tempfile.TemporaryDirectory(prefix="functrain-") as place:
            return self.upload(write(Path(place) / step_name(snap.step or 0), snap))

    def upload(self, path: str | Path, log: str | Path | None = None) -> str:
        """Upload a local checkpoint unchanged, and prune older ones; return its URL.

        Args:
            path: its directory.
            log: the ``metrics.jsonl`` of its run, to upload with it.

        Raises:
            CheckpointWriteError: the upload failed; older checkpoints are unchanged.
            CheckpointCorruptError: the local one is damaged.
        """
        with self._writing():
            objects = self.objects()
            attempt = send(objects, absolute(path), None if log is None else absolute(log))
        choosing.prune(objects, self.rules, just_saved=attempt)
        return f"{objects.url}/{attempt.name}"

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order, including damaged ones."""
        with self._reading():
            found = attempts(self.objects())
        return sorted({attempt.step for attempt in found if attempt.committed})

    def best(self) -> int | None:
        """Return the step with the best metric, or ``None`` if no checkpoint has it."""
        with self._reading():
            ranked = choosing.ranked(self.objects(), self._best)
        return next((attempt.step for attempt in ranked), None)

    def read_manifest(self, step: int) -> Manifest:
        """Read the manifest of a step's checkpoint without downloading the payload."""
        with self._reading():
            objects = self.objects()
            attempt = choosing.candidates(objects, step, self._best)[0]
            with named_in_errors(objects, attempt):
                return receive_manifest(objects, attempt)

    def verify(self, step: int) -> Manifest:
        """Download a checkpoint and compare all its bytes with their saved hashes."""
        with self._reading():
            objects = self.objects()
            attempt = choosing.candidates(objects, step, self._best)[0]
            with download(objects, attempt) as place:
                return verify(place)

    def restore(
        self, which: int | str | None = None, like: Any = None, **options: Any
    ) -> tuple[Tree, Manifest]:
        """Download and load a checkpoint, as :meth:`functrain.Checkpoints.restore` does.

        A network error is not damage: it is raised, and no older checkpoint is loaded. With
        ``only``, files without such leaves are not downloaded.

        Raises:
            CheckpointReadError: the store could not be read.
            The errors of :meth:`functrain.Checkpoints.restore`.
        """
        with self._reading():
            objects = self.objects()
            # `only` names leaves after renaming, so with `rename` every file may be needed.
            only = None if options.get("rename") else options.get("only")
            wants = None if only is None else PathOptions.of(only=only).wants

            def use(attempt: Attempt) -> tuple[Tree, Manifest]:
                with download(objects, attempt, wants) as place:
                    return read(place, like, **options)

            listed = partial(choosing.candidates, objects, which, self._best)
            return choosing.first_intact(objects, listed, use)

    def fetch(self, directory: str | Path) -> Path:
        """Download the newest intact checkpoint into a run directory, for ``fit`` to resume.

        Its ``metrics.jsonl`` is downloaded too. If the directory has an intact checkpoint of the
        same step or a later one, nothing is downloaded.

        Args:
            directory: the run directory; created if it does not exist.

        Returns:
            The newest intact checkpoint in the directory.

        Raises:
            NoCheckpointError: neither the store nor the directory has one.
            CheckpointCorruptError: every one in the store is damaged.
            CheckpointReadError: the store could not be read.
            CheckpointWriteError: the directory could not be written to.
            LogError: the directory has the log of another run.
            RunDirectoryBusyError: another process is writing there.
        """
        run = absolute(directory)
        with self._reading(), locked(run):
            objects = self.objects()
            places = ((step, run / step_name(step)) for step in reversed(list_steps(run)))
            newest, here = next((each for each in places if is_intact(each[1])), (-1, None))

            def use(attempt: Attempt) -> Path:
                if here is not None and newest >= attempt.step:
                    return here
                return download_into_run(objects, attempt, run / step_name(attempt.step))

            listed = partial(choosing.candidates, objects, None, self._best)
            try:
                return choosing.first_intact(objects, listed, use)
            except NoCheckpointError:
                if here is None:
                    raise
                return here

    def prune(self, dry_run: bool = False) -> list[int]:
        """Remove the checkpoints that no rule keeps, and what interrupted uploads left.

        The newest complete checkpoint always stays, and so does an incomplete upload that began
        less than a day ago. Return the steps removed; with ``dry_run`` those that would be.
        """
        with self._reading():
            objects = self.objects()
            if dry_run:
                said = choosing.entries(objects, attempts(objects))
                return choosing.prunable_steps(said, self.rules, None)
        return choosing.prune(objects, self.rules)

    def _not_together(self) -> UnsupportedError:
        return UnsupportedError(
            f"ranks cannot save together to {without_secrets(self.url)}. Save with "
            "functrain.Checkpoints to a directory that all nodes mount, then call upload(path) on "
            "rank 0"
        )

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        return system_errors(without_secrets(self.url), CheckpointReadError)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return system_errors(without_secrets(self.url), CheckpointWriteError)
