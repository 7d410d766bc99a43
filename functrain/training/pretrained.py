"""``functrain.program``: the constructor of the core, whose programs begin from a path, too.

The core reads no files, so it is handed the function that does.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from functrain.core import constructor


def _read(params: Any) -> Any:
    """Return pretrained values; those at a path are read from there."""
    if not isinstance(params, str | os.PathLike):
        return params
    from functrain.checkpoint import weights  # when it is used: a program needs no files

    return weights(Path(params))


if not TYPE_CHECKING:

    @functools.wraps(constructor.program)
    def program(*args, **kwargs):
        return attrs.evolve(constructor.program(*args, **kwargs), read=_read)

else:  # the same signature
    from functrain.core.constructor import program as program
