"""Training in processes of their own that share the imports but nothing else."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from benchmarks.proof.contenders import Train
from benchmarks.proof.tasks import Fuse, Task

_LONGEST = 120  # seconds; ranks that wait for each other end then


@attrs.frozen
class Outcome:
    """How a process ended: the weights that it trained, or the error that it raised.

    Attributes:
        weights: none if it did not finish.
        batches: on which it trained.
        error: the last line of a traceback, "" if there was none.
    """

    weights: Mapping[str, np.ndarray] = {}
    batches: int = 0
    error: str = ""

    @property
    def was_killed(self) -> bool:
        return not self.weights and not self.error

    def equals(self, other: Outcome) -> bool:
        """Return whether both ended with the same weights, bit for bit."""
        return self.weights.keys() == other.weights.keys() and all(
            self.weights[name].tobytes() == other.weights[name].tobytes() for name in self.weights
        )

    def distance(self, other: Outcome) -> float:
        """Return the largest difference of two weights."""
        return max(float(np.abs(self.weights[n] - other.weights[n]).max()) for n in self.weights)


@attrs.frozen
class Process:
    """A forked process that trains, and the pipe of its outcome."""

    id: int
    results: int

    def wait(self) -> Outcome:
        with os.fdopen(self.results, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(self.id, 0)
        return Outcome() if os.WIFSIGNALED(status) else Outcome(**pickle.loads(answer))

    def kill(self) -> None:
        os.killpg(self.id, signal.SIGKILL)
        os.waitpid(self.id, 0)
        os.close(self.results)


def run(train: Train, task: Task, directory: Path, kill_after: int | None = None) -> Outcome:
    """Train in a forked process, which is killed after some batches if that is given."""
    return start(train, task, directory, kill_after).wait()


def run_together(train: Train, task: Task, directory: Path, ranks: int) -> Outcome:
    """Train in several processes that form a process group, and return the first's outcome."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    # Lightning recognises torchrun by its last variables.
    place |= {"LOCAL_WORLD_SIZE": str(ranks), "TORCHELASTIC_RUN_ID": "proof", "GROUP_RANK": "0"}
    variables = [place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    started = [start(train, task, directory, variables=each) for each in variables]
    outcomes = [process.wait() for process in started]
    errors = [outcome for outcome in outcomes if outcome.error or outcome.was_killed]
    return (errors or outcomes)[0]


def start(
    train: Train,
    task: Task,
    directory: Path,
    kill_after: int | None = None,
    variables: Mapping[str, str] = {},
) -> Process:
    """Fork a process that trains."""
    directory.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    sys.stdout.flush()
    if process := os.fork():
        os.close(writing)
        return Process(process, reading)
    os.setsid()
    signal.alarm(_LONGEST)
    os.environ.update(variables)
    answer: dict[str, object] = {}
    try:
        with open(directory.parent / f"{directory.name}.log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        Fuse.batches = kill_after
        answer = {"weights": arrays(train(task, directory)), "batches": Fuse.burnt}
    except BaseException as error:
        traceback.print_exc()
        text = traceback.format_exception_only(error)[-1].strip() or type(error).__name__
        answer = {"error": text}
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(answer, pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def arrays(weights: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: torch.clone(tensor.detach()).numpy() for name, tensor in weights.items()}
