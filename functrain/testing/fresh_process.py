"""Call a function in a new process, as after a crash, with another hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

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
