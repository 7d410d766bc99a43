"""Processes that kill themselves at their n-th call, forked so that torch is loaded only once."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import traceback
from collections.abc import Callable
from typing import Any

CALLS = ("open", "mkdir", "write", "pwrite", "posix_fallocate", "ftruncate", "fsync", "rename")
CALLS += ("link", "unlink", "rmdir", "close", "listdir", "scandir")
DONE, FAILED = 0, 3


def killed(work: Callable[[], Any], nth: int, torn: bool = False) -> bool:
    """Carry out some work in a process that dies at one of its calls.

    Args:
        work: makes its calls through the attributes of ``os`` and ``fcntl``.
        nth: the call before which it is killed, from 1.
        torn: if that call writes, half of it is written first.

    Returns:
        ``False`` if it was done before that.
    """
    child = os.fork()
    if child == 0:
        _arm(nth, torn)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(FAILED)
        os._exit(DONE)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == DONE, "the work failed by itself"
    return False


def _arm(nth: int, torn: bool) -> None:
    lock, count = threading.Lock(), [0]
    pwrite = os.pwrite

    def armed(call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with lock:
                count[0] += 1
                if count[0] == nth:
                    if torn and call is pwrite:
                        call(args[0], memoryview(args[1])[: len(args[1]) // 2], args[2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    for name in CALLS:
        setattr(os, name, armed(getattr(os, name)))
    fcntl.flock = armed(fcntl.flock)
    fcntl.fcntl = armed(fcntl.fcntl)
