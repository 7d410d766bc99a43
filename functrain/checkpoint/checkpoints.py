"""The checkpoints of a run: saved by step, found again by step, newest or best."""

from __future__ import annotations

import contextlib
import errno
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import validators

from functrain.checkpoint import hard_links, pruning
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.loading import read, verify
from functrain.checkpoint.retention import MODES, Best, Rule, check_positive, union
from functrain.checkpoint.run_directory import absolute, check_format, list_steps, locked, step_name
from functrain.checkpoint.saving import write
from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.core.schedule import Mode
from functrain.errors import CheckpointCorruptError, ConfigurationError, NoCheckpointError
from functrain.errors.validators import whole
from functrain.tree import Tree

_MOST_ATTEMPTS = 20


@attrs.frozen
class Checkpoints:
    """The checkpoints in a run directory. A value: it can be made anew anywhere, any time.

    What there is, a listing shows: ``step-00000120`` and the like, each whole or absent.

    A checkpoint stays while any rule keeps it. Where only ``keep_best`` and ``monitor`` are given,
    all stay; otherwise at least the newest does.

    Args:
        directory: the run directory; made when first written to.
        keep_last: how many of the newest to keep.
        keep_best: how many of the best to keep besides.
        monitor: the metric that says what is best. Checkpoints without it are never best, nor are
            those where it is NaN or infinite.
        mode: whether ``"min"`` or ``"max"`` of it is best; the earlier one of equals. By default
            what the metric says (``higher_is_better``), or what a well-known name implies
            (accuracy, loss); of any other metric it must be given.
        keep_every_steps: keep those at multiples of so many steps.
        keep_every_minutes: keep one for each span of so many minutes.
        keep: further rules, see :mod:`functrain.checkpoint.retention`.
        background: ``fit`` goes on training while a checkpoint is written.
        share_frozen: link the file of tensors that do not change from one checkpoint to the next,
            where the file system can; otherwise each has its own.

    Example:
        >>> import tempfile, torch
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
    keep_last: int | None = attrs.field(default=None, validator=check_positive, kw_only=True)
    keep_best: int = attrs.field(default=1, validator=whole(0), kw_only=True)
    monitor: str = attrs.field(default="loss", kw_only=True)
    mode: Mode | None = attrs.field(
        default=None, validator=validators.optional(MODES), kw_only=True
    )
    keep_every_steps: int | None = attrs.field(default=None, validator=check_positive, kw_only=True)
    keep_every_minutes: float | None = attrs.field(
        default=None, validator=check_positive, kw_only=True
    )
    keep: Sequence[Rule] = attrs.field(default=(), converter=tuple, kw_only=True)
    background: bool = attrs.field(default=False, kw_only=True)
    share_frozen: bool = attrs.field(default=True, kw_only=True)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What is kept; nothing is let go where there are none."""
        every = self.keep_every_steps, self.keep_every_minutes
        return union(self._best, self.keep_last, *every, more=self.keep)

    @property
    def _best(self) -> Best:
        return Best(self.monitor, self.mode, self.keep_best)

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
        frozen: Iterable[str] = (),
    ) -> Path:
        """Save a tree under its step, durably, and let older ones go.

        Args:
            tree: see :func:`functrain.checkpoint.save`.
            step: updates made. A checkpoint of the same step is replaced.
            metrics: numbers by name; ``monitor`` is looked up here.
            info: plain data to keep beside it.
            frozen: dotted paths of tensors that do not change; they go to a file of their own.

        Returns:
            The checkpoint's directory.

        Raises:
            ConfigurationError: nothing says whether less or more of ``monitor`` is better.
            The errors of :func:`functrain.checkpoint.save` and of :meth:`lock`.
        """
        self._best.check(metrics or {})
        taken = snapshot(tree, info=info, step=step, metrics=metrics, frozen=frozen)
        return self.write(taken)

    def write(self, taken: Snapshot) -> Path:
        """Save what was taken apart already; the other half of :meth:`save`."""
        step = taken.step or 0
        path, shares = self.path(step), self.share_frozen and taken.frozen
        with self.lock():
            previous = hard_links.newest(self.directory, step) if shares else None
            write(path, taken, overwrite=True, previous=previous)
            pruning.prune(self.directory, self.rules, just_saved=taken.step)
        return path

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        count = operator.index(step)
        if count < 0:
            raise ValueError(f"a step is a count of updates, so it cannot be {step}")
        return self.directory / step_name(count)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in numeric order; damaged ones are not told apart.

        Raises:
            RunDirectoryError: the directory is none, or may not be read.
        """
        return list_steps(self.directory)

    def best(self) -> int | None:
        """The step whose metrics are best, ``None`` where none has the metric.

        Raises:
            ConfigurationError: nothing says whether less or more of ``monitor`` is better.
        """
        return next(iter(self._best.ranked(self.entries())), None)

    def entries(self) -> dict[int, Entry]:
        """What each checkpoint says of itself; those that cannot be read are passed over."""
        return pruning.entries(self.directory)

    def verify(self, step: int) -> Manifest:
        """Read all bytes of a checkpoint and compare them with what was saved.

        Raises:
            CheckpointCorruptError: names file and leaf.
            NoCheckpointError: there is none of this step.
        """
        manifest = verify(self.path(step))
        pruning.check_step(self.path(step), step, manifest.step)
        return manifest

    def restore(
        self,
        which: int | str | Path | None = None,
        like: Any = None,
        *,
        step: int | None = None,
        **options: Any,
    ) -> tuple[Tree, Manifest]:
        """Load a checkpoint. Of several the first that verifies wins.

        Damaged ones are passed over with a :class:`CheckpointSkippedWarning` and left where they
        are. One that does not fit ``like`` is not damaged: that is an error.

        Args:
            which: ``"latest"`` (also ``None``), ``"best"``, a step, or a path.
            like: see :func:`functrain.checkpoint.load`.
            step: instead of ``which``.
            options: of :func:`functrain.checkpoint.load`, such as ``device`` and ``types``.

        Returns:
            (tree, manifest).

        Raises:
            NoCheckpointError: there is none.
            CheckpointCorruptError: the one asked for, or every one, is damaged.
            ConfigurationError: both ``which`` and ``step`` are given.
            The other errors of :func:`functrain.checkpoint.load`.
        """
        check_format(self.directory)
        if step is not None:
            if which is not None:
                raise ConfigurationError(f"restore takes which={which!r} or step={step}, not both")
            which = step
        if which not in (None, "latest", "best"):
            if isinstance(which, str | Path):
                return read(which, like, **options)
            path = self.path(which)
            tree, manifest = read(path, like, **options)
            pruning.check_step(path, operator.index(which), manifest.step)
            return tree, manifest
        for _ in range(_MOST_ATTEMPTS):
            best = which == "best"
            candidates = self._best.ranked(self.entries()) if best else self.steps()[::-1]
            if not candidates:
                detail = f" with a finite metric {self.monitor!r}" if best else ""
                raise NoCheckpointError(
                    errno.ENOENT, f"there is no checkpoint{detail} in {self.directory}"
                )
            found = self._first_intact(candidates, like, options)
            if found is not None:
                return found
        raise NoCheckpointError(
            errno.ENOENT, f"checkpoints in {self.directory} were let go faster than they were read"
        )

    def _first_intact(
        self, candidates: list[int], like: Any, options: Mapping[str, Any]
    ) -> tuple[Tree, Manifest] | None:
        """The first that verifies; ``None`` where another process has let all of them go."""
        damages = []
        for step in candidates:
            try:
                tree, manifest = read(self.path(step), like, **options)
                pruning.check_step(self.path(step), step, manifest.step)
            except NoCheckpointError:
                continue
            except CheckpointCorruptError as damage:
                damages.append(str(damage))
                pruning.warn_skipped(self.path(step), damage)
            else:
                return tree, manifest
        if not damages:
            return None
        listed = "\n".join(f"  {damage}" for damage in damages)
        raise CheckpointCorruptError(f"every checkpoint in {self.directory} is damaged:\n{listed}")

    def prune(self, dry_run: bool = False) -> list[int]:
        """Let go what no rule keeps, as saving does; one that verifies always stays.

        Args:
            dry_run: only say what would go.

        Returns:
            Their steps.
        """
        if dry_run:
            return pruning.going(self.directory, self.rules, just_saved=None)
        with self.lock():
            return pruning.prune(self.directory, self.rules, just_saved=None)
