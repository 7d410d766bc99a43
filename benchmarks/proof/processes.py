"""Training in processes of their own that share the imports but nothing else."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import attrs

from benchmarks.proof.contenders import Train
from benchmarks.proof.tasks import Fuse, Task

UNCAUGHT = 3


@attrs.frozen
class Outcome:
    """How a process ended: the hash of the weights it trained, or the error it raised.

    Attributes:
        weights: "" if it did not finish.
        error: the last line of a traceback, "" if there was none.
    """

    weights: str = ""
    error: str = ""

    @property
    def was_killed(self) -> bool:
        return not self.weights and not self.error


def run(train: Train, task: Task, directory: Path, kill_after: int | None = None) -> Outcome:
    """Train in a forked process, which is killed after some batches if that is given."""
    directory.mkdir(parents=True, exist_ok=True)
    process, results = start(train, task, directory, kill_after)
    with os.fdopen(results) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return Outcome()
    return Outcome(error=answer) if os.waitstatus_to_exitcode(status) else Outcome(weights=answer)


def start(
    train: Train, task: Task, directory: Path, kill_after: int | None = None
) -> tuple[int, int]:
    """Return the id of a process that trains, and a pipe with its result."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    if process := os.fork():
        os.close(writing)
        return process, reading
    os.setsid()
    code = UNCAUGHT
    try:
        with open(directory.parent / f"{directory.name}.log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        Fuse.batches = kill_after
        answer = hashed(train(task, directory))
        code = 0
    except BaseException as error:
        traceback.print_exc()
        answer = traceback.format_exception_only(error)[-1].strip() or type(error).__name__
    os.write(writing, answer.encode()[:4000])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def hashed(weights: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].detach().numpy().tobytes())
    return digest.hexdigest()
