"""Run Python on scripts and modules in forks of a server that has imported torch.

A new interpreter imports torch for two seconds; a fork begins in a few hundredths of a second. It
is a process of its own that can be signalled, killed and outlived, with its own environment.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

CONTEXT = multiprocessing.get_context("forkserver")
# A process of pytest has one server, with the modules that were named last: name them here only.
CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "torch._dynamo",  # which DTensor.from_local imports
        "torch.distributed.tensor",
        "functrain.core.constructor",
        "functrain.data",
        "functrain.distributed",
        "functrain.cli.entry_point",
        "functrain.cli.train",
        "functrain.examples.digits",
        "functrain.plotting.figure",
        "matplotlib.backends.backend_agg",
        "functrain.testing.strategies",
    ]
)

_FORKS = """import json, os, sys, traceback, torch
failures = {}
for name, code in json.loads(sys.argv[1]).items():
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            exec(code, {"sys": sys, "torch": torch})
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        os._exit(0)
    os.close(writing)
    failures[name] = os.fdopen(reading).read()
    _, status = os.wait()
    assert status == 0, (name, status)
print(json.dumps(failures))
"""


@attrs.frozen
class _Job:
    arguments: list[str]
    directory: str
    variables: dict[str, str]
    path: list[str]
    output: str
    errors: str
    new_session: bool


class Child:
    """A process with what these tests use of ``subprocess.Popen``.

    Args:
        arguments: those of Python: ``-c CODE``, ``-m MODULE`` or a script, and their arguments.
        cwd: the working directory.
        env: all environment variables.
        start_new_session: whether it leads a process group of its own.
        stdout: the path of a terminal or file for its output, instead of one of its own.
        stderr: the same for its errors.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        start_new_session: bool = False,
        stdout: str | None = None,
        stderr: str | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.output, self.errors = (Path(self._folder.name, name) for name in ("out", "err"))
        job = _Job(
            list(arguments),
            str(cwd or Path.cwd()),
            dict(os.environ if env is None else env),
            list(sys.path),
            stdout or str(self.output),
            stderr or str(self.errors),
            start_new_session,
        )
        begun, sender = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(target=_work, args=(job, sender), daemon=True)
        self._process.start()
        sender.close()
        begun.recv()  # it has left the session and set up its files
        begun.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            self.send_signal(signal.SIGTERM)  # a launcher then ends its processes
            self._process.join(10)
            self._process.kill()
            self._process.join()
            raise AssertionError(f"still ran after {timeout} s:\n{self.errors.read_text()}")
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        self.wait(timeout)
        return self.output.read_text(), self.errors.read_text()

    def wait_for_lines(self, count: int) -> list[str]:
        """Return what it printed, once there are so many whole lines or it has ended."""
        while True:
            ended = self.poll() is not None
            lines = self.output.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            if ended or len(whole) >= count:
                return whole
            time.sleep(0.002)


def run(
    *arguments: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments to its end."""
    child = Child(*arguments, cwd=cwd, env=env)
    out, err = child.communicate(timeout)
    assert child.returncode is not None
    return subprocess.CompletedProcess([*arguments], child.returncode, out, err)


def functrain(
    *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return run("-m", "functrain", *arguments, cwd=cwd, env=env)


def failures_in_forks(pieces: dict[str, str]) -> dict[str, str]:
    """Run each piece of code in a fork of one new interpreter that has imported torch only.

    Args:
        pieces: code by name, which finds ``sys`` and ``torch``.

    Returns:
        The traceback of each piece, empty where it ended without an exception.
    """
    command = [sys.executable, "-c", _FORKS, json.dumps(pieces)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def forked(function: Callable[..., Any], *arguments: Any) -> int:
    """Call a function in a fork, which has new memory and another hash seed.

    Returns:
        0, or the negative number of the signal that ended it.

    Raises:
        AssertionError: the function raised; with its traceback.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_called, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        failure = ours.recv()
    except EOFError:  # killed before it could report
        failure = ""
    process.join()
    assert not failure, f"the new process failed:\n{failure}"
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


def _work(job: _Job, begun: Connection) -> None:
    """Be Python, in the fork."""
    gc.freeze()  # a collection would copy all pages of the server
    multiprocessing.current_process().daemon = False  # it may start processes
    if job.new_session:
        os.setsid()
    for number, name in ((1, job.output), (2, job.errors)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(job.variables)
    os.chdir(job.directory)
    begun.send(None)
    begun.close()
    code = 1
    try:
        _run(job)
        code = 0
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            code = error.code or 0
        else:
            print(error.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(job: _Job) -> None:
    import torch

    torch.set_num_threads(int(job.variables.get("OMP_NUM_THREADS", "1")))
    own = [path for path in job.variables.get("PYTHONPATH", "").split(os.pathsep) if path]
    first, *rest = job.arguments
    if first == "-m":
        name, *rest = rest
        sys.path[:] = [job.directory, *own, *job.path]
        sys.argv = [name, *rest]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif first == "-c":
        code, *rest = rest
        sys.path[:] = [job.directory, *own, *job.path]
        sys.argv = ["-c", *rest]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(main))
    else:
        script = Path(job.directory, first)
        sys.path[:] = [str(script.parent), *own, *job.path]
        sys.argv = [first, *rest]
        runpy.run_path(str(script), run_name="__main__")
