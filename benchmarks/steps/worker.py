"""A process that runs one contender: ``python -m benchmarks.steps.worker DESCRIPTOR``."""

from __future__ import annotations

import contextlib
import os
import sys
from multiprocessing.connection import Connection

from benchmarks.steps.protocol import Failed, Task


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    task: Task = connection.recv()
    if task.core is not None:
        os.sched_setaffinity(0, {task.core})
    try:
        _run(task, connection)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        connection.send(Failed(f"{type(error).__name__}: {lines[0]}"))
        raise


def _run(task: Task, connection: Connection) -> None:
    from benchmarks.steps.contenders import CONTENDERS

    contender = CONTENDERS[task.contender]
    import torch

    from benchmarks.steps.feed import Feed, Over
    from benchmarks.steps.gpu import GPU_WORKS
    from benchmarks.steps.work import WORKS

    torch.set_num_threads(task.threads)
    work = {**WORKS, **GPU_WORKS}[task.work]
    loop = contender.function()
    with contextlib.suppress(Over):
        loop(work, Feed(connection, work.batch(), work.device))


if __name__ == "__main__":
    main()
