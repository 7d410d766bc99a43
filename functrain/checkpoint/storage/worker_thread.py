"""Run one function in a new thread without ever hanging when the thread cannot start.

``threading.Thread.start`` waits forever for a thread that has no memory to start
(python/cpython#140746). A run that is short of memory must fail or continue, but never hang.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

_PATIENCE = 10.0  # seconds that a new thread may take to start, even on an overloaded machine


class WorkerThread:
    """A daemon thread that calls one function once.

    When :meth:`wait` has returned true, the thread holds no reference to the function any more.

    Example:
        >>> done = []
        >>> thread = WorkerThread(lambda: done.append("saved"))
        >>> thread.start() and thread.wait()
        True
        >>> done
        ['saved']
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work
        # Acquired once, by whichever is first: the thread, to work, or the caller, to give up.
        self._claim = threading.Lock()
        # The thread releases both. Plain locks, because releasing one allocates no memory.
        self._started, self._ended = threading.Lock(), threading.Lock()
        self._started.acquire()
        self._ended.acquire()
        self._over = True  # until it is started

    def start(self) -> bool:
        """Start the thread; return whether the work has started. If not, it never will."""
        try:
            self._over = False
            _thread.start_new_thread(self._run, ())
            if self._started.acquire(timeout=_PATIENCE):
                return True
        except RuntimeError:  # the system has no more threads, or no memory for one
            pass
        except BaseException:  # from a signal handler; the thread may have started
            self._give_up()
            raise
        return not self._give_up()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the work; return whether it has ended or was never started."""
        if not self._over and self._ended.acquire(timeout=-1 if timeout is None else timeout):
            self._ended.release()  # a signal between the two lines is harmless: the work is over
        return self._over

    def _give_up(self) -> bool:
        """Prevent the thread from starting the work; return false if it has started."""
        given_up = self._claim.acquire(blocking=False)
        if given_up:
            self._work, self._over = None, True
        return given_up

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):
            return  # too late: start() gave up
        self._started.release()
        try:
            assert self._work is not None  # only the holder of the claim clears it
            self._work()
        finally:
            self._work = None
            self._over = True
            self._ended.release()
