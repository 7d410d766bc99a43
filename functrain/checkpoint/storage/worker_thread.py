"""Work in a thread of its own, of which it is always known whether it was begun and has ended.

``threading.Thread.start`` waits for ever for a thread that finds no memory to begin with
(python/cpython#140746). A run that is short of memory is to fail, or to go on, but not to hang.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

_PATIENCE = 10.0  # seconds in which a new thread begins, also on a machine that is overloaded


class WorkerThread:
    """Work that is done once, in another thread.

    The thread does not keep the interpreter from ending. When :meth:`wait` has returned true it
    holds nothing of the work any more.

    Args:
        work: what to call.

    Example:
        >>> done = []
        >>> beside = WorkerThread(lambda: done.append("saved"))
        >>> beside.start() and beside.wait()
        True
        >>> done
        ['saved']
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work
        self._claim = threading.Lock()  # whoever holds it decides: to work, or that no one will
        # Both are let go of by the thread. Plain locks: to release one takes no memory.
        self._begun, self._ended = threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._ended.acquire()
        self._over = True  # until it is begun

    def start(self) -> bool:
        """Begin.

        Returns:
            Whether a thread has begun the work; if not, none will.
        """
        try:
            self._over = False
            _thread.start_new_thread(self._run, ())
            if self._begun.acquire(timeout=_PATIENCE):
                return True
        except RuntimeError:  # the system has no more threads, or no memory for one
            pass
        except BaseException:  # a signal's; the thread may have begun
            self._give_up()
            raise
        return not self._give_up()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end.

        Args:
            timeout: seconds; by default as long as it takes.

        Returns:
            Whether it has ended, or was never begun.
        """
        if not self._over and self._ended.acquire(timeout=-1 if timeout is None else timeout):
            self._ended.release()  # a signal between the two lines harms nothing: it is over
        return self._over

    def _give_up(self) -> bool:
        """Settle that no thread does it; false if one does."""
        given_up = self._claim.acquire(blocking=False)
        if given_up:
            self._work, self._over = None, True
        return given_up

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):
            return  # too late, it was given up
        self._begun.release()
        try:
            assert self._work is not None  # who holds the claim is the first to let go of it
            self._work()
        finally:
            self._work = None
            self._over = True
            self._ended.release()
