"""Cheap fresh processes: children of the server of ``tests/support/processes.py``.

It has imported functrain and run nothing. The memory of such a process is that of newly imported
modules, and its hash seed differs from the parent's. The server survives the death of a child.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from processes import CONTEXT

KILLED = -9


def forked(function: Callable[..., Any], *arguments: Any) -> int:
    """Call a function in a new process; how that ended: 0, or less than 0 for a signal.

    Raises:
        AssertionError: the function raised; with its traceback.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_called, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        told = ours.recv()
    except EOFError:  # killed before it could report
        told = ""
    process.join()
    assert not told, f"the new process failed:\n{told}"
    assert process.exitcode is not None
    return process.exitcode


def _called(end: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        function(*arguments)
    except BaseException:
        end.send(traceback.format_exc())
        raise SystemExit(1) from None
    end.send("")
