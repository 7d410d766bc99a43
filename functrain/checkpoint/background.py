"""Saving while training goes on: the step is held up only for taking the state apart."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import attrs

from functrain.checkpoint.snapshot import Snapshot, snapshot
from functrain.checkpoint.staging import ByReference, StagedCopies
from functrain.checkpoint.storage.worker_thread import WorkerThread
from functrain.errors import (
    CheckpointTimeoutError,
    CheckpointWriteError,
    CheckpointWriteWarning,
)
from functrain.errors.warning import warn
from functrain.tree import Tree


class Store(Protocol):
    """What can write a snapshot: :class:`functrain.Checkpoints`, or a store elsewhere."""

    def write(self, taken: Snapshot) -> Path | str:
        """Write it durably, and say where."""


@attrs.define(eq=False)
class _PendingSave:
    """One save, if any, under way or over. Its outcome is asked for once."""

    step: int | None
    beside: WorkerThread | None = None
    owner: int = attrs.field(factory=os.getpid)
    path: Path | str | None = None
    error: BaseException | None = None

    def landed(self, timeout: float | None) -> bool:
        """Wait for the end of it."""
        # In a forked child there is no thread that could end it.
        return self.beside is None or self.owner != os.getpid() or self.beside.wait(timeout)


class Saver:
    """Saves checkpoints of a store in the background, one at a time.

    States are values, so their tensors are held by reference until they are written: saving costs
    the step no copy. Where they are overwritten in place (a donated program), ``staged`` copies
    them first. An error is raised by whatever is called next.

    Args:
        store: a :class:`functrain.Checkpoints`, say.
        staged: copy tensors before ``save`` returns, into memory that is used again.
        deadline: seconds that closing, or the end of the interpreter, waits for a save.
        inline: write before ``save`` returns after all; its errors are then raised by it.

    Example:
        >>> import functrain as ft, tempfile, torch
        >>> store = ft.Checkpoints(tempfile.mkdtemp())
        >>> with Saver(store) as saver:
        ...     saver.save({"w": torch.ones(2)}, step=1)
        ...     # the next steps are made here, while the file is written
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
    ) -> None:
        self._store, self._deadline, self._inline = store, deadline, inline
        self._holding = StagedCopies() if staged and not inline else ByReference(inline)
        self._flight = _PendingSave(None)
        self._one_at_a_time = threading.RLock()  # a signal handler may save, too
        self._at_exit: weakref.finalize[..., Saver] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"besides, a checkpoint was not saved: {failure}")

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
        """Begin to save a tree; wait for the save before, if that is still under way.

        Args:
            tree: see :func:`functrain.checkpoint.save`. It must not be changed in place until it is
                written, unless the saver is ``staged``; if it is, nothing is saved, which is told.
                (Of writes through ``.data`` or ``.numpy()`` torch keeps no count.) NumPy arrays and
                other memory that is not torch's are copied at once.
            step: updates made.
            metrics: numbers by name.
            info: plain data to keep beside it.
            frozen: dotted paths of tensors that do not change; they go to a file of their own.
            first: called in the background before anything is written.

        Raises:
            UnsupportedError: the tree holds what could not be given back exactly.
            The error of the save before, if that failed; then this one is not begun.
        """
        with self._one_at_a_time:
            self._save(tree, step, metrics, info, frozen, first)

    def _save(
        self,
        tree: Tree,
        step: int,
        metrics: Mapping[str, Any] | None,
        info: Any,
        frozen: Iterable[str],
        first: Callable[[], None] | None,
    ) -> None:
        taken = snapshot(tree, info=info, step=step, metrics=metrics, frozen=frozen)
        self.wait()  # only now: what is called on the way may have saved, too
        flight = self._flight = _PendingSave(step)
        held = self._holding.hold(taken)
        work = partial(_fly, flight, self._store, held, self._holding, first)
        if self._inline:
            work()
            self._raise()
            return
        flight.beside = WorkerThread(work)
        if not flight.beside.start():
            work()
        self._at_exit = weakref.finalize(self, _settle, flight, self._deadline)

    def poll(self) -> Path | str | None:
        """Where the save in flight was saved, once, when it is; does not wait.

        Raises:
            The save's error, once.
        """
        return self.wait() if self._flight.landed(0.0) else None

    def wait(self, timeout: float | None = None) -> Path | str | None:
        """Wait for the save in flight.

        Args:
            timeout: seconds; by default as long as it takes.

        Returns:
            Where it was saved; ``None`` if none was in flight or this was told already.

        Raises:
            CheckpointTimeoutError: it takes longer; it goes on.
            The save's error, once.
        """
        flight = self._flight
        if not flight.landed(timeout):
            raise CheckpointTimeoutError(flight.step, timeout or 0.0)
        self._raise()
        self._forget()
        return flight.path

    def close(self, timeout: float | None = None) -> Path | str | None:
        """Like :meth:`wait`, but give the save up when it takes too long.

        Args:
            timeout: seconds; by default the deadline.
        """
        try:
            return self.wait(self._deadline if timeout is None else timeout)
        except CheckpointTimeoutError:
            self._forget()
            raise

    def _raise(self) -> None:
        error = self._flight.error
        if error is not None:
            self._forget()
            raise error

    def _forget(self) -> None:
        self._flight = _PendingSave(None)
        if self._at_exit is not None:
            self._at_exit.detach()


def _fly(
    flight: _PendingSave,
    store: Store,
    taken: Snapshot,
    holding: ByReference | StagedCopies,
    first: Callable[[], None] | None,
) -> None:
    try:
        if first is not None:
            _do_first(first, flight.step)
        with holding.ready():
            flight.path = store.write(taken)
    except BaseException as error:  # raised in the thread that asks
        flight.error = error


def _do_first(first: Callable[[], None], step: int | None) -> None:
    try:
        first()
    except OSError as error:
        raise CheckpointWriteError(f"of step {step}", error) from error


def _settle(flight: _PendingSave, deadline: float) -> None:
    """What is left to do for a save that nobody asks about any more: wait for it, and tell."""
    landed = flight.landed(deadline)
    failure = flight.error if landed else CheckpointTimeoutError(None, deadline)
    if failure is not None:
        warn(
            f"the checkpoint of step {flight.step} was not saved: {failure}",
            CheckpointWriteWarning,
        )
