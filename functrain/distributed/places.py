"""The place in the code where a rank waited for others, in words for an error message."""

from __future__ import annotations

import itertools
import linecache
import sysconfig
import traceback
from pathlib import Path

import torch

_OWN = str(Path(__file__).parents[1])
# The line of the user is the innermost one that is in none of these.
_LIBRARIES = (
    str(Path(torch.__file__).parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<",
)


def place_of(error: BaseException) -> str:
    """Return the user's line and the function of functrain in which a collective failed.

    Example:
        >>> try:
        ...     raise RuntimeError
        ... except RuntimeError as error:
        ...     place_of(error)
        'the program'
    """
    handled = [(frame.f_code, line) for frame, line in traceback.walk_stack(None)]
    raised = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    user, own = "", ""
    for code, line in itertools.chain(reversed(handled[1:]), raised):
        file = code.co_filename
        if file.startswith(_OWN):
            own = f"functrain's {code.co_qualname}"
        elif not file.startswith(_LIBRARIES):
            text = linecache.getline(file, line).strip()
            user = f"{Path(file).name}:{line}" + (f" `{text}`" if text else "")
    return " in ".join(filter(None, (own, user))) or "the program"
