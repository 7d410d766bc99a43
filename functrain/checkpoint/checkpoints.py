"""The checkpoints of a run: saved by step, found again by step, newest or best."""

from __future__ import annotations

import contextlib
import errno
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs import validators

from functrain.checkpoint import commit
from functrain.checkpoint.loading import is_sound, read, read_manifest
from functrain.checkpoint.manifest import Manifest
from functrain.checkpoint.retention import dispensable, ranked
from functrain.checkpoint.run_directory import (
    absolute,
    check_format,
    list_steps,
    locked,
    step_name,
)
from functrain.checkpoint.saving import save
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointNotRemovedWarning,
    CheckpointSkippedWarning,
    ConfigurationError,
    NoCheckpointError,
)
from functrain.tree import Tree


@attrs.frozen
class Checkpoints:
    """The checkpoints in a run directory. A value: it can be made anew anywhere, any time.

    What there is, a listing shows: ``step-00000120`` and the like, each whole or absent.

    Args:
        directory: the run directory; made when first written to.
        keep_last: how many of the newest to keep; ``None`` keeps all.
        keep_best: how many of the best to keep besides.
        monitor: the metric that says what is best. Checkpoints without it are never best, nor are
            those where it is NaN or infinite.
        mode: whether ``"min"`` or ``"max"`` of it is best; the earlier one of equals.

    Example:
        >>> import tempfile
        >>> store = Checkpoints(tempfile.mkdtemp(), keep_last=2)
        >>> for step, loss in enumerate([0.3, 0.1, 0.4, 0.2]):
        ...     _ = store.save({"w": torch.full((2,), loss)}, step=step, metrics={"loss": loss})
        >>> store.steps(), store.best()
        ([1, 2, 3], 1)
        >>> tree, manifest = store.restore("best")
        >>> tree, manifest.metrics
        ({'w': tensor([0.1000, 0.1000])}, {'loss': 0.1})
    """

    directory: Path = attrs.field(converter=absolute)
    keep_last: int | None = attrs.field(default=3, kw_only=True)
    keep_best: int = attrs.field(default=1, validator=validators.ge(0), kw_only=True)
    monitor: str = attrs.field(default="loss", kw_only=True)
    mode: Literal["min", "max"] = attrs.field(
        default="min", validator=validators.in_(("min", "max")), kw_only=True
    )

    @keep_last.validator
    def _check_keep_last(self, _: object, value: int | None) -> None:
        if value is not None and value < 1:
            raise ConfigurationError(
                f"keep_last={value}: keep at least 1 checkpoint, or None for all"
            )

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Be the only process that writes here, for as long as the block lasts.

        Raises:
            RunDirectoryBusyError: another process is writing here.
            RunDirectoryError: the directory cannot be made, read or written.
        """
        return locked(self.directory)

    def save(
        self,
        tree: Tree,
        *,
        step: int,
        metrics: Mapping[str, Any] | None = None,
        info: Any = None,
    ) -> Path:
        """Save a tree under its step, durably, and let older ones go.

        Args:
            tree: see :func:`functrain.checkpoint.save`.
            step: updates made. A checkpoint of the same step is replaced.
            metrics: numbers by name; ``monitor`` is looked up here.
            info: plain data to keep beside it.

        Returns:
            The checkpoint's directory.

        Raises:
            The errors of :func:`functrain.checkpoint.save` and of :meth:`lock`.
        """
        path = self.path(step)
        with self.lock():
            save(path, tree, info=info, step=step, metrics=metrics, overwrite=True)
            try:
                self._let_go(just_saved=step)
            except OSError as error:  # the checkpoint is saved, whatever becomes of older ones
                _warn_kept(self.directory, error)
        return path

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        if step < 0:
            raise ValueError(f"a step is a count of updates, so it cannot be {step}")
        return self.directory / step_name(step)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in numeric order; damaged ones are not told apart.

        Raises:
            RunDirectoryError: the directory is none, or may not be read.
        """
        return list_steps(self.directory)

    def best(self) -> int | None:
        """The step whose metrics are best, ``None`` where none has the metric."""
        return next(iter(self._ranked(self._metrics())), None)

    def restore(
        self,
        which: int | str | Path | None = None,
        like: Any = None,
        *,
        device: str | torch.device | None = None,
        types: Sequence[type] = (),
    ) -> tuple[Tree, Manifest]:
        """Load a checkpoint. Of several the first that verifies wins.

        Damaged ones are passed over with a :class:`CheckpointSkippedWarning` and left where they
        are. One that does not fit ``like`` is not damaged: that is an error.

        Args:
            which: ``"latest"`` (also ``None``), ``"best"``, a step, or a path.
            like: see :func:`functrain.checkpoint.load`.
            device: see there.
            types: see there.

        Returns:
            (tree, manifest).

        Raises:
            NoCheckpointError: there is none.
            CheckpointCorruptError: the one asked for, or every one, is damaged.
            The other errors of :func:`functrain.checkpoint.load`.
        """
        check_format(self.directory)
        if which not in (None, "latest", "best"):
            path = self.path(which) if isinstance(which, int) else Path(str(which))
            return read(path, like, device=device, types=types)
        candidates = self._ranked(self._metrics()) if which == "best" else self.steps()[::-1]
        if not candidates:
            detail = f" with a finite metric {self.monitor!r}" if which == "best" else ""
            raise NoCheckpointError(
                errno.ENOENT, f"there is no checkpoint{detail} in {self.directory}"
            )
        damages = []
        for step in candidates:
            try:
                return self._own(step, *read(self.path(step), like, device=device, types=types))
            except CheckpointCorruptError as damage:
                damages.append(str(damage))
                _warn_skipped(self.path(step), damage)
        listed = "\n".join(f"  {damage}" for damage in damages)
        raise CheckpointCorruptError(f"every checkpoint in {self.directory} is damaged:\n{listed}")

    def prune(self) -> list[int]:
        """Let go what is not to be kept, as saving does; one that verifies always stays.

        Returns:
            Their steps.
        """
        with self.lock():
            return self._let_go(just_saved=None)

    def _let_go(self, just_saved: int | None) -> list[int]:
        if self.keep_last is None:
            return []
        metrics = self._metrics()
        best = self._ranked(metrics)[: self.keep_best]
        going = dispensable(metrics, best, self.keep_last, just_saved)
        if going and just_saved is None:
            spared = self._to_spare(set(metrics) - set(going), going)
            going = [step for step in going if step != spared]
        return [step for step in going if _removed(self.path(step))]

    def _to_spare(self, kept: set[int], going: list[int]) -> int | None:
        """The newest sound checkpoint among those going, if none of those kept is sound."""
        if any(is_sound(self.path(step)) for step in sorted(kept, reverse=True)):
            return None
        return next((step for step in reversed(going) if is_sound(self.path(step))), None)

    def _metrics(self) -> dict[int, dict[str, Any]]:
        found = {}
        for step in self.steps():
            try:
                found[step] = self._own(step, None, read_manifest(self.path(step)))[1].metrics
            except (CheckpointCorruptError, CheckpointFormatError) as damage:
                _warn_skipped(self.path(step), damage)
        return found

    def _ranked(self, metrics: Mapping[int, Mapping[str, Any]]) -> list[int]:
        return ranked(metrics, self.monitor, self.mode)

    def _own(self, step: int, tree: Tree, manifest: Manifest) -> tuple[Tree, Manifest]:
        if manifest.step != step:
            raise CheckpointCorruptError(
                f"{self.path(step)} holds the checkpoint of step {manifest.step}"
            )
        return tree, manifest


def _removed(path: Path) -> bool:
    try:
        commit.remove(path)
    except OSError as error:
        _warn_kept(path, error)
        return False
    return True


def _warn_kept(path: Path, error: OSError) -> None:
    warnings.warn(
        f"what is no longer needed in {path} could not be removed: {error}",
        CheckpointNotRemovedWarning,
        stacklevel=3,
    )


def _warn_skipped(path: Path, damage: Exception) -> None:
    warnings.warn(f"passed over {path}: {damage}", CheckpointSkippedWarning, stacklevel=3)
