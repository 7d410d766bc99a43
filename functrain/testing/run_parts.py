"""Execute a part of a run, from its last checkpoint to an interruption or the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints
from functrain.errors import ConfigurationError, ListenerError, ReplayWarning, ResumptionError
from functrain.testing.factories import Importable, Make, fit_arguments, importable
from functrain.testing.interruptions import Cut, CutShortError, Interruption
from functrain.training.durations import Steps

_KILLED = -9


@attrs.frozen
class RunPart:
    """The part of a run that one call of ``fit`` executes, until a cut or the last step."""

    directory: str
    steps: int
    cut: Cut | None
    workers: int | None
    number: int


def in_this_process(make: Make, part: RunPart) -> None:
    """Execute a part in this process; the exception of a cut ends it."""
    from functrain.training.fitting import fit

    try:
        with warnings.catch_warnings():
            # Replaying batches is expected with such data.
            warnings.simplefilter("ignore", ReplayWarning)
            fit(**{"progress": False, **arguments(fit_arguments(make), part)})
    except ListenerError as error:
        if not isinstance(error.__cause__, CutShortError):
            raise


def in_a_fresh_process(make: Make, part: RunPart) -> None:
    """Execute a part in a new process with another hash seed."""
    options = {"make": attrs.asdict(importable(make)), "part": attrs.asdict(part)}
    done = fresh_process("functrain.testing.run_parts", "child", options, part.number + 1)
    killed = part.cut is not None and part.cut.how == "kill" and done.returncode == _KILLED
    if done.returncode and not killed:
        where = "" if part.cut is None else f", which was to end in {part.cut},"
        raise ResumptionError(
            f"part {part.number} of the run{where} failed in its process:\n{done.stderr[-2000:]}"
        )


def arguments(given: dict[str, Any], part: RunPart) -> dict[str, Any]:
    """Return the arguments of ``fit`` for a part."""
    own = dict(given)
    store = own.get("directory")
    if isinstance(store, Checkpoints):
        own["directory"] = attrs.evolve(store, directory=Path(part.directory))
    else:
        own["directory"] = part.directory
    if part.cut is not None:
        # Last, so that all other listeners have seen the step.
        own["listeners"] = [*own.get("listeners", ()), Interruption(part.cut)]
    if part.workers is not None:
        own["data"] = _with_workers(own["data"], part.workers)
    return {**own, "until": Steps(part.steps), "resume": True}


def _with_workers(data: Any, workers: int) -> Any:
    names = {field.name for field in attrs.fields(type(data))} if attrs.has(type(data)) else set()
    if "workers" not in names:
        raise ConfigurationError(
            f"the number of workers of {type(data).__name__} cannot be changed from here; it can "
            "for functrain.data.Batches"
        )
    return attrs.evolve(data, workers=workers)


def child(options: dict[str, Any]) -> None:
    """Execute a part; the entry point of the new process."""
    fields = options["part"]
    cut = fields.pop("cut")
    part = RunPart(**fields, cut=None if cut is None else Cut(**cut))
    in_this_process(Importable(**options["make"]).load(), part)


_SECONDS = 600
# Set the path before importing user code, so that it shadows nothing.
_PROGRAM = """
import importlib, json, sys
call = json.loads(sys.argv[1])
sys.path[:] = call["path"]
getattr(importlib.import_module(call["module"]), call["function"])(call["argument"])
"""


def fresh_process(
    module: str, function: str, argument: dict[str, Any], hash_seed: int
) -> subprocess.CompletedProcess[str]:
    r"""Call a function in a new Python process, and wait for it.

    Example:
        >>> fresh_process("builtins", "print", {"a": 1}, hash_seed=1).stdout
        "{'a': 1}\n"
    """
    path = [entry or os.getcwd() for entry in sys.path]
    call = {"path": path, "module": module, "function": function, "argument": argument}
    return subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, json.dumps(call)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        check=False,
    )
