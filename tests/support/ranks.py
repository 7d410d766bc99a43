"""Run a function on several real processes that form a process group over gloo.

A server process imports torch once a session, and each rank is a fork of it: a launch takes a few
hundredths of a second. Every rank ends within the timeout, then with the stacks of its threads.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import os
import pickle
import random
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType, ModuleType, UnionType
from typing import Any

import attrs
import processes
from processes import CONTEXT

ROOT = Path(__file__).parents[2]
_GRACE = 10.0
_LONGEST = 300.0  # only a rank that hangs takes so long, however busy the machine is


class DiedError(Exception):
    """A rank ended without a result: killed, crashed, or still running after the timeout.

    Attributes:
        code: the exit code; the negative number of the signal that ended it.
        output: the text that the rank printed.
    """

    def __init__(self, code: int | None, output: str) -> None:
        self.code, self.output = code, output
        super().__init__(f"ended with exit code {code}; its output:\n{output}")


class RanksError(Exception):
    """Ranks raised exceptions; the message has the traceback of each."""


@attrs.frozen
class _Job:
    """A rank's work, as it is sent to its process."""

    module: str
    file: str
    function: str
    arguments: bytes
    variables: dict[str, str]
    path: list[str]
    output: str
    timeout: float


def run(function: Callable[..., Any], n: int, *args: Any, timeout: float = _LONGEST) -> list[Any]:
    """Return what a function returns on each of ``n`` ranks.

    Args:
        function: defined in a module, not in another function. It joins the process group by
            :func:`functrain.distributed.current`, which finds the variables of a launcher.
        n: the number of processes.
        args: of the function.
        timeout: seconds after which every rank ends.

    Raises:
        RanksError: a rank raised an exception or died; the message has all tracebacks.
    """
    found = outcomes(function, n, *args, timeout=timeout)
    failed = {rank: each for rank, each in enumerate(found) if isinstance(each, BaseException)}
    if failed:
        texts = (
            f"--- rank {rank} of {n} ---\n{''.join(traceback.format_exception(error))}"
            for rank, error in failed.items()
        )
        raise RanksError("\n" + "\n".join(texts))
    return found


def require_error(
    kind: type[Exception] | UnionType, words: str, function: Callable[..., Any], n: int, *args: Any
) -> None:
    """Require that a function raises an error of a kind, with some words, on each of n ranks."""
    for error in outcomes(function, n, *args):
        assert isinstance(error, kind), error
        assert words in str(error)


def outcomes(
    function: Callable[..., Any],
    n: int,
    *args: Any,
    timeout: float = _LONGEST,
    variables: dict[str, str] | None = None,
) -> list[Any]:
    """Return what a function returns on each rank, or its exception.

    Args:
        function, n, args, timeout: as in :func:`run`.
        variables: further environment variables.
    """
    assert isinstance(function, FunctionType), "expected a function of a module"
    assert "<" not in function.__qualname__, "a rank imports the function by its name"
    launched = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with tempfile.TemporaryDirectory() as folder:
        waiting = []
        for rank in range(n):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}
            job = _Job(
                function.__module__,
                function.__code__.co_filename,
                function.__qualname__,
                pickle.dumps(args),
                {**os.environ, **launched, **own, **(variables or {})},
                sys.path,
                f"{folder}/{rank}",
                timeout,
            )
            receiver, sender = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=_work, args=(job, sender), daemon=True)
            process.start()
            sender.close()
            waiting.append((process, receiver, Path(job.output)))
        end = time.monotonic() + timeout + _GRACE
        try:
            return [_outcome(*each, end) for each in waiting]
        finally:
            for process, receiver, _ in waiting:
                process.kill()
                process.join()
                receiver.close()


def _outcome(process: Any, receiver: Connection, output: Path, end: float) -> Any:
    try:
        if receiver.poll(max(0.0, end - time.monotonic())):
            return pickle.loads(receiver.recv_bytes())
    except EOFError:
        process.join(_GRACE)
    printed = output.read_text(errors="replace") if output.exists() else ""
    return DiedError(process.exitcode, printed[-8000:])


def _work(job: _Job, sender: Connection) -> None:
    """Run one rank, in its own process."""
    gc.freeze()  # a collection would copy all pages of the server
    with open(job.output, "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    faulthandler.dump_traceback_later(job.timeout, exit=True, file=2)
    os.environ.clear()
    os.environ.update(job.variables)
    sys.path[:] = job.path
    import torch

    torch.set_num_threads(1)
    from functrain.distributed import leave

    try:
        function = getattr(_module(job.module, job.file), job.function)
        found = function(*pickle.loads(job.arguments))
        leave()
        data = pickle.dumps(found)
    except BaseException as error:
        error.add_note("".join(traceback.format_exception(error)))
        data = _pickled(error)
        leave()
    sender.send_bytes(data)
    sender.close()
    sys.stdout.flush()


def _module(name: str, file: str) -> ModuleType:
    """Import a module by its name, or a test module, which has a name in pytest only."""
    if "." not in name:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pickled(error: BaseException) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
    return data


def free_port() -> int:
    """Return a port of this machine that nothing uses now.

    The system gives none of its range, from 32768 on, to another socket before this one is used.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_768)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def torchrun(
    n: int, script: Path | str, *args: str, options: Sequence[str] = (), timeout: float = _LONGEST
) -> subprocess.CompletedProcess[str]:
    """Run a script on ``n`` processes by the real torchrun, in seconds.

    Args:
        n: processes.
        script: a file, or the name of a module after ``-m`` in ``options``.
        args: of the script.
        options: of torchrun, for example ``["--max-restarts=1"]``.
        timeout: seconds after which torchrun and its processes are ended.
    """
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(n)]
    if not any(option.startswith(("--rdzv", "--standalone", "--master")) for option in options):
        launch.append("--standalone")
    variables = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return processes.run(*launch, *options, str(script), *args, env=variables, timeout=timeout)
