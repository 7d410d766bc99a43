"""Warnings that show the line of the user's code that led to them."""

from __future__ import annotations

import os
import sys
import warnings

from functrain.errors import FunctrainWarning

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def warn(message: str, category: type[FunctrainWarning]) -> None:
    """Warn of the innermost line that is not functrain's, however deep in functrain this is called.

    Args:
        message: what happened, and what to do about it.
        category: its kind.

    Example:
        >>> from functrain.errors import ReplayWarning
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     warn("two batches are drawn and dropped", ReplayWarning)
        >>> [(each.category.__name__, str(each.message)) for each in caught]
        [('ReplayWarning', 'two batches are drawn and dropped')]
    """
    # From Python 3.12 on warnings.warn can do this: skip_file_prefixes.
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
