"""``functrain.program``: the constructor of the core, whose programs begin from a path, too.

The core reads no files, so it is handed the function that does.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import attrs

from functrain.core import constructor
from functrain.core.program import Program

Arguments = ParamSpec("Arguments")


def _reading(construct: Callable[Arguments, Program]) -> Callable[Arguments, Program]:
    @functools.wraps(construct)
    def program(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Program:
        return attrs.evolve(construct(*args, **kwargs), read=_read)

    return program


def _read(params: Any) -> Any:
    """Return pretrained values; those at a path are read from there."""
    if not isinstance(params, str | os.PathLike):
        return params
    from functrain.checkpoint import weights  # when it is used: a program needs no files

    return weights(Path(params))


program = _reading(constructor.program)
