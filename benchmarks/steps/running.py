"""Workers as the parent sees them: started in the environment of a setting, run in turns."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import attrs

from benchmarks.steps.contenders import Contender
from benchmarks.steps.protocol import Answer, Failed, Task, Turn

_ROOT = Path(__file__).parents[2]
_PATIENCE = 3600.0  # seconds to wait for an answer; a cold compilation takes longest


class ContenderError(Exception):
    """A contender failed; the text gives the reason in one line."""


@attrs.frozen
class Setting:
    """The setting in which a work is measured.

    Attributes:
        work: its name.
        threads: of every contender; with one each is bound to one core, the same for all.
    """

    work: str
    threads: int = 1

    @property
    def core(self) -> int | None:
        """Return the core for one-thread figures: the last one."""
        return max(os.sched_getaffinity(0)) if self.threads == 1 else None

    def environment(self, cache: Path | None, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a worker; with ``cache``, compiled code is kept only there."""
        found = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of processes would survive the worker
            "JAX_PLATFORMS": "cpu",
            **extra,
        }
        if self.threads == 1:
            flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            found["XLA_FLAGS"] = flags
        if cache is not None:
            found["TORCHINDUCTOR_CACHE_DIR"] = str(cache / "inductor")
            found["JAX_COMPILATION_CACHE_DIR"] = str(cache / "jax")
            found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
            found["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        return found


@attrs.frozen(eq=False)
class Worker:
    """A process that runs one contender."""

    contender: Contender
    _connection: Connection
    _errors: IO[bytes]

    def ask(self, turn: Turn) -> Answer:
        """Run a turn, and wait for the answer.

        Raises:
            ContenderError: it could not.
        """
        answer: Answer | Failed | None = None
        with contextlib.suppress(EOFError, ConnectionError):
            self._connection.send(turn)
            if not self._connection.poll(_PATIENCE):
                raise ContenderError(f"no answer within {_PATIENCE:.0f} s")
            answer = self._connection.recv()
        if isinstance(answer, Answer):
            return answer
        raise ContenderError(self._last_words() if answer is None else answer.reason)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the process ended: {lines[-1] if lines else 'no output'}"


@contextlib.contextmanager
def started(
    contender: Contender,
    setting: Setting,
    cache: Path | None = None,
    extra: Mapping[str, str] | None = None,
) -> Iterator[Worker]:
    """Provide a worker for a block; its process ends with the block.

    Args:
        contender: the contender to run.
        setting: the setting to run it in.
        cache: the only directory for compiled code.
        extra: more variables of the environment.
    """
    here, there = Pipe()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.steps.worker", str(there.fileno())],
            cwd=_ROOT,
            env=setting.environment(cache, extra or {}),
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        there.close()
        try:
            here.send(Task(contender.name, setting.work, setting.threads, setting.core))
            yield Worker(contender, here, errors)
        finally:
            _end(process, here)


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    with contextlib.suppress(ConnectionError):
        connection.send(None)
    connection.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
