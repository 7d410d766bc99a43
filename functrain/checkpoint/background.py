"""Save in the background: training waits only while the state is encoded."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import attrs

from functrain.checkpoint.ranks import World, agree, connect, disconnect, world_of
from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.checkpoint.staging import ByReference, StagedCopies
from functrain.errors import (
    CheckpointTimeoutError,
    CheckpointWriteError,
    CheckpointWriteWarning,
)
from functrain.errors.base import warn
from functrain.tree import Tree


class Store(Protocol):
    """Writes snapshots: :class:`functrain.Checkpoints`, or a remote store."""

    def write(
        self, snap: Snapshot, world: World | None = None, first: Callable[[], None] | None = None
    ) -> Path | str:
        """Write a snapshot durably and return its path or URL.

        A saver gives ``world`` and ``first``, which is called before anything is written, only if
        several ranks write the snapshot together.
        """


@attrs.define(eq=False)
class _PendingSave:
    """At most one save, running or finished, whose outcome was not collected yet.

    Attributes:
        ended: is set at the end of the thread's work; ``None`` if no thread runs. (Joining the
            thread would not do: an interrupted join takes it for ended.)
    """

    step: int | None
    ended: threading.Event | None = None
    owner: int = attrs.field(factory=os.getpid)
    path: Path | str | None = None
    error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Do the work in a thread, or here if the system has no more threads."""
        ended = threading.Event()

        def run() -> None:
            try:
                work()
            finally:
                ended.set()

        thread = threading.Thread(target=run, name="functrain save", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            work()
        finally:
            if thread.ident is not None:  # it runs, even if a signal has interrupted the start
                self.ended = ended

    def finished(self, timeout: float | None) -> bool:
        """Wait for the save; return whether it has finished."""
        # A forked child has no such thread, so nothing could finish the save there.
        return self.ended is None or self.owner != os.getpid() or self.ended.wait(timeout)


class Saver:
    """Saves checkpoints to a store in the background, one at a time.

    States are immutable, so their tensors are held by reference until they are written: saving
    costs the step no copy. If tensors are overwritten in place (a donated program), ``staged``
    copies them first. The next method called raises the error of a failed save.

    If ranks hold parts of a tree, all of them save it, each with a saver of its own; they exchange
    the parts in the background, too. All savers raise the error of one rank. ``poll`` may find a
    save finished on some ranks and not yet on others: let rank 0 decide, and the others ``wait``.

    Args:
        store: for example a :class:`functrain.Checkpoints`.
        staged: copy tensors before ``save`` returns, into reused memory.
        deadline: seconds that ``close``, or the end of the interpreter, waits for a save.
        inline: write before ``save`` returns, which then raises the errors.
        world: ranks that save together even if none of them holds parts: rank 0 writes and prunes,
            the others compare what they hold.

    Example:
        >>> import functrain as ft, tempfile, torch
        >>> store = ft.Checkpoints(tempfile.mkdtemp())
        >>> with Saver(store) as saver:
        ...     saver.save({"w": torch.ones(2)}, step=1)
        ...     # the next steps run here, while the file is written
        >>> store.steps()
        [1]
    """

    def __init__(
        self,
        store: Store,
        *,
        staged: bool = False,
        deadline: float = 600.0,
        inline: bool = False,
        world: World | None = None,
    ) -> None:
        self._world = world
        self._own: World | None = None
        self._store, self._deadline, self._inline = store, deadline, inline
        self._holding = StagedCopies() if staged and not inline else ByReference(inline)
        self._pending = _PendingSave(None)
        self._one_at_a_time = threading.RLock()  # a signal handler may save, too
        self._at_exit: weakref.finalize[..., Saver] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except Exception as failure:  # not hidden: raised, or noted on the first error
            if error is None:
                raise
            error.add_note(f"in addition, a checkpoint was not saved: {failure}")

    def save(
        self,
        tree: Tree,
        *,
        step: int,
        metrics: Mapping[str, Any] | None = None,
        info: Any = None,
        frozen: Iterable[str] = (),
        first: Callable[[], None] | None = None,
    ) -> None:
        """Start saving a tree, after waiting for the previous save.

        The tree must not be changed in place until it is written, unless the saver is ``staged``;
        otherwise the save fails with ``CheckpointChangedError``. (torch does not count writes
        through ``.data`` or ``.numpy()``.) NumPy arrays and other foreign memory are copied at
        once. ``first`` is called in the background before anything is written; the other arguments
        are those of :func:`functrain.checkpoint.save`.

        Raises:
            UnsupportedError: the tree has a leaf that could not be restored exactly.
            The error of the previous save, if it failed; then this one is not started.
        """

        def held() -> Snapshot:
            snap = snapshot(tree, info=info, step=step, metrics=metrics, frozen=frozen)
            self.wait()  # only now: taking the snapshot runs user code, which may have saved too
            return self._holding.hold(snap)

        with self._one_at_a_time:
            self._save(tree, step, held, first)

    def _save(
        self,
        tree: Tree,
        step: int,
        held: Callable[[], Snapshot],
        first: Callable[[], None] | None,
    ) -> None:
        world = self._ranks(tree)
        if world is not None:
            self.wait()  # the save before uses the group of this one
        snap = agree(world, held)
        pending = self._pending = _PendingSave(step)
        work = partial(_run_save, pending, self._store, snap, self._holding, first, world)
        if self._inline:
            work()
            self._raise()
            return
        if world is not None:
            atexit.register(pending.finished, self._deadline)  # before the process leaves its group
        pending.start(work)
        self._at_exit = weakref.finalize(self, _finish_at_exit, pending, self._deadline)

    def _ranks(self, tree: Tree) -> World | None:
        """Return the ranks that save a tree together, in a process group of this saver."""
        if self._own is None:
            world = self._world or world_of(tree)
            self._own = None if world is None else connect(world)
        return self._own

    @property
    def is_finished(self) -> bool:
        """Whether no save is running."""
        return self._pending.finished(0.0)

    def poll(self) -> Path | str | None:
        """Return the path of the pending save, once, if it has finished; do not wait.

        Raises:
            The save's error, once.
        """
        return self.wait() if self.is_finished else None

    def wait(self, timeout: float | None = None) -> Path | str | None:
        """Wait for the pending save.

        Args:
            timeout: seconds; no limit by default.

        Returns:
            Its path; ``None`` if no save is pending or its path was returned before.

        Raises:
            CheckpointTimeoutError: it takes longer; it keeps running.
            The save's error, once.
        """
        pending = self._pending
        if not pending.finished(timeout):
            raise CheckpointTimeoutError(pending.step, timeout or 0.0)
        self._raise()
        self._forget()
        return pending.path

    def close(self, timeout: float | None = None) -> Path | str | None:
        """Wait for the pending save, and abandon it if it takes too long.

        Args:
            timeout: seconds; the deadline by default.
        """
        try:
            path = self.wait(self._deadline if timeout is None else timeout)
        except CheckpointTimeoutError:
            self._forget()
            raise
        if self._own is not None:
            disconnect(self._own)
            self._own = None
        return path

    def _raise(self) -> None:
        error = self._pending.error
        if error is not None:
            self._forget()
            raise error

    def _forget(self) -> None:
        atexit.unregister(self._pending.finished)
        self._pending = _PendingSave(None)
        if self._at_exit is not None:
            self._at_exit.detach()


def _run_save(
    pending: _PendingSave,
    store: Store,
    snap: Snapshot,
    holding: ByReference | StagedCopies,
    first: Callable[[], None] | None,
    world: World | None,
) -> None:
    try:
        with contextlib.ExitStack() as stack:

            def prepare() -> None:
                if first is not None:
                    _do_first(first, pending.step)
                stack.enter_context(holding.ready())

            if world is not None:
                pending.path = store.write(snap, world, prepare)
            else:
                prepare()
                pending.path = store.write(snap)
    except BaseException as error:  # raised in the thread that waits
        pending.error = error


def _do_first(first: Callable[[], None], step: int | None) -> None:
    try:
        first()
    except OSError as error:
        raise CheckpointWriteError(f"the checkpoint of step {step}", error) from error


def _finish_at_exit(pending: _PendingSave, deadline: float) -> None:
    """Wait for a save whose saver is gone, and warn if it failed."""
    finished = pending.finished(deadline)
    failure = pending.error if finished else CheckpointTimeoutError(None, deadline)
    if failure is not None:
        warn(
            f"the checkpoint of step {pending.step} was not saved: {failure}",
            CheckpointWriteWarning,
        )
