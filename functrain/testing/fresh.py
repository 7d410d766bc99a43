"""Functions called in a new process, as after a crash: nothing in memory, other hashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

_SECONDS = 600
# The path is set before anything of the user's is imported, so that nothing is shadowed by it.
_PROGRAM = """
import importlib, json, sys
told = json.loads(sys.argv[1])
sys.path[:] = told["path"]
getattr(importlib.import_module(told["module"]), told["function"])(told["argument"])
"""


def fresh_process(
    module: str, function: str, argument: dict[str, Any], hash_seed: int
) -> subprocess.CompletedProcess[str]:
    r"""Call a function in a new Python process, and wait for it.

    Args:
        module: where the function is.
        function: its name; it is given the argument.
        argument: goes through JSON.
        hash_seed: of the process (``PYTHONHASHSEED``), on which the order of sets depends.

    Returns:
        The process that ended, with what it wrote.

    Example:
        >>> fresh_process("builtins", "print", {"a": 1}, hash_seed=1).stdout
        "{'a': 1}\n"
    """
    path = [entry or os.getcwd() for entry in sys.path]
    told = {"path": path, "module": module, "function": function, "argument": argument}
    return subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, json.dumps(told)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        check=False,
    )
