"""The checkpoints of a run: save them by step; restore by step, newest or best."""

from __future__ import annotations

import contextlib
import errno
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import hard_links, pruning
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.loading import read, verify
from functrain.checkpoint.publishing import Write
from functrain.checkpoint.ranks import World, agree, from_first, own_group, world_of
from functrain.checkpoint.retention import Retention
from functrain.checkpoint.run_directory import check_format, list_steps, locked, step_name
from functrain.checkpoint.saving import save_snapshot
from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.errors import CheckpointCorruptError, ConfigurationError, NoCheckpointError
from functrain.errors.calls import explained
from functrain.errors.paths import absolute
from functrain.tree import Tree

_MOST_ATTEMPTS = 20


@explained
@attrs.frozen
class Checkpoints(Retention):
    """The checkpoints in a run directory, named by step: ``step-00000120``.

    An instance is an immutable value without state of its own; it reads the directory at each
    call. A directory listing shows only complete checkpoints.

    A checkpoint is pruned when no rule keeps it. If only ``keep_best`` and ``monitor`` are given,
    nothing is pruned; otherwise at least the newest checkpoint is kept.

    Args:
        directory: the run directory; created by the first save.
        keep_last: how many of the newest to keep.
        keep_best: how many of the best to keep in addition.
        monitor: the metric that ranks checkpoints. A checkpoint without it, or whose value is NaN
            or infinite, is never best.
        mode: whether ``"min"`` or ``"max"`` is best; of equal values the earlier step wins. The
            default follows the metric (``higher_is_better``) or its well-known name (accuracy,
            loss); any other metric needs an explicit mode.
        keep_every_steps: keep the steps that are multiples of this number.
        keep_every_minutes: keep one checkpoint per interval of this many minutes.
        keep: more rules, see :mod:`functrain.checkpoint.retention`.
        background: let ``fit`` continue training while a checkpoint is written.
        share_frozen: hard-link the file of frozen tensors from one checkpoint to the next where the
            file system supports it; otherwise write a copy into each.

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
    background: bool = attrs.field(default=False, kw_only=True)
    share_frozen: bool = attrs.field(default=True, kw_only=True)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the exclusive right to write to this directory inside a ``with`` block.

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
        """Save a tree under its step, durably, and prune older checkpoints; return its directory.

        The arguments are those of :func:`functrain.checkpoint.save`. An existing checkpoint of this
        step is replaced; ``metrics`` should have ``monitor``.

        Raises:
            ConfigurationError: whether a low or a high ``monitor`` is better is unknown.
            The errors of :func:`functrain.checkpoint.save` and of :meth:`lock`.
        """
        self._best.check(metrics or {})
        options: dict[str, Any] = {"info": info, "step": step, "metrics": metrics, "frozen": frozen}
        world = world_of(tree)
        snap = agree(world, partial(snapshot, tree, **options))
        with own_group(world) as own:
            return self.write(snap, own)

    def write(
        self, snap: Snapshot, world: World | None = None, first: Callable[[], None] | None = None
    ) -> Path:
        """Write a snapshot; the second half of :meth:`save`.

        If the ranks of a ``world`` write it together, only rank 0 takes the lock, and prunes.
        ``first`` is called before anything is written.
        """
        return save_snapshot(world, snap, partial(self._write, snap), first)

    def _write(self, snap: Snapshot, write: Write) -> Path:
        step = snap.step or 0
        path, shares = self.path(step), self.share_frozen and snap.frozen
        with self.lock():
            previous = hard_links.newest(self.directory, step) if shares else None
            write(path, overwrite=True, previous=previous)
            pruning.prune(self.directory, self.rules, just_saved=snap.step)
        return path

    def path(self, step: int) -> Path:
        """Return the path of a step's checkpoint, whether it exists or not."""
        count = operator.index(step)
        if count < 0:
            raise ValueError(f"a step is a count of updates, so it cannot be {step}")
        return self.directory / step_name(count)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order, including damaged ones.

        Raises:
            RunDirectoryError: the path is not a directory, or it cannot be read.
        """
        return list_steps(self.directory)

    def best(self) -> int | None:
        """Return the step with the best metric, or ``None`` if no checkpoint has it.

        Raises:
            ConfigurationError: whether a low or a high ``monitor`` is better is unknown.
        """
        return next(iter(self._best.ranked(self.entries())), None)

    def entries(self) -> dict[int, Entry]:
        """Return the metrics and time of each checkpoint, skipping unreadable ones."""
        return pruning.entries(self.directory)

    def verify(self, step: int) -> Manifest:
        """Read all bytes of a checkpoint and compare them with what was saved.

        Raises:
            CheckpointCorruptError: bytes differ; the message names file and leaf.
            NoCheckpointError: this step has no checkpoint.
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
        world: World | None = None,
        **options: Any,
    ) -> tuple[Tree, Manifest]:
        """Load a checkpoint: the first of the candidates that verifies.

        A damaged checkpoint is skipped with a :class:`CheckpointSkippedWarning` and left in place.
        A checkpoint that does not fit ``like`` is not damaged: that is an error.

        Args:
            which: ``"latest"`` (also ``None``), ``"best"``, a step, or a path.
            like: see :func:`functrain.checkpoint.load`.
            step: instead of ``which``.
            world: ranks that restore the same checkpoint at the same time, which rank 0 chooses; by
                default those that hold parts of ``like``.
            options: of :func:`functrain.checkpoint.load`, such as ``device`` and ``types``.

        Returns:
            (tree, manifest).

        Raises:
            NoCheckpointError: no such checkpoint exists.
            CheckpointCorruptError: the requested checkpoint, or every one, is damaged.
            ConfigurationError: both ``which`` and ``step`` are given.
            The other errors of :func:`functrain.checkpoint.load`.
        """
        check_format(self.directory)
        world = world or world_of(like)
        options["world"] = world
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
            listed = partial(from_first, world, partial(self._candidates, which == "best"))
            candidates = listed()
            if not candidates:
                message = f"there is no checkpoint in {self.directory}"
                raise NoCheckpointError(
                    errno.ENOENT, message if which != "best" else message + self._unmeasured()
                )
            found = self._first_intact(candidates, listed, like, options)
            if found is not None:
                return found
        raise NoCheckpointError(
            errno.ENOENT,
            f"checkpoints in {self.directory} were pruned while being read",
        )

    def _candidates(self, best: bool) -> list[int]:
        return self._best.ranked(self.entries()) if best else self.steps()[::-1]

    def _unmeasured(self) -> str:
        """Return what to monitor instead, where no checkpoint has the metric."""
        wanted = f" with a finite metric {self.monitor!r}"
        names = sorted({name for entry in self.entries().values() for name in entry.metrics})
        if not names:
            return wanted
        return f"{wanted}; name one that they have as monitor: {', '.join(names)}"

    def _first_intact(
        self,
        candidates: list[int],
        listed: Callable[[], list[int]],
        like: Any,
        options: Mapping[str, Any],
    ) -> tuple[Tree, Manifest] | None:
        """Return the first that verifies, or ``None`` if they must be listed again."""
        damages = []
        for step in candidates:
            try:
                tree, manifest = read(self.path(step), like, **options)
                pruning.check_step(self.path(step), step, manifest.step)
            except NoCheckpointError as missing:
                if listed() != candidates:  # a process that prunes saves, too
                    return None
                if self.path(step).is_file():
                    damages.append(missing.strerror or str(missing))
                    pruning.warn_skipped(self.path(step), missing)
            except CheckpointCorruptError as damage:
                damages.append(str(damage))
                pruning.warn_skipped(self.path(step), damage)
            else:
                return tree, manifest
        if not damages:
            return None
        lines = "\n".join(f"  {damage}" for damage in damages)
        raise CheckpointCorruptError(f"every checkpoint in {self.directory} is damaged:\n{lines}")

    def prune(self, dry_run: bool = False) -> list[int]:
        """Remove the checkpoints that no rule keeps, but never the last one that verifies.

        Return their steps; with ``dry_run`` only those that would be removed.
        """
        if dry_run:
            return pruning.prunable_steps(self.directory, self.rules, just_saved=None)
        with self.lock():
            return pruning.prune(self.directory, self.rules, just_saved=None)
