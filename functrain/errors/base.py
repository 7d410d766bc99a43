"""The bases of all errors and warnings, the errors that any part may raise, and ``warn``."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable

from functrain.errors.nearest import nearest

__all__ = [
    "CallError",
    "ConfigurationError",
    "FunctrainError",
    "FunctrainWarning",
    "MissingExtraError",
    "UnknownNameError",
    "UnsupportedError",
]
_SHOWN = 12
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class FunctrainError(Exception):
    """Base of all errors raised by functrain itself."""


class FunctrainWarning(UserWarning):
    """Base of all warnings issued by functrain."""


class ConfigurationError(FunctrainError, ValueError):
    """An argument has a value that the function or class cannot work with.

    It is of arguments in Python; of configuration files, see :class:`ConfigError`.
    """


class UnsupportedError(FunctrainError, TypeError):
    """An object is of a kind that cannot be used here, or in this way."""


class CallError(FunctrainError, TypeError):
    """A call does not fit the signature: an argument is unknown, missing or given twice."""


class UnknownNameError(FunctrainError, KeyError):
    """There is no entry of a name; the message proposes the nearest one.

    Args:
        name: what was asked for.
        names: what there is.
        what: the mapping, for the message.
        hint: what to do about it, in addition.
    """

    def __init__(self, name: object, names: Iterable[object], what: str, hint: str = "") -> None:
        self.name, self.names, self.what, self.hint = name, list(names), what, hint
        super().__init__(name, self.names, what, hint)

    def __str__(self) -> str:
        # Not in the constructor: code may ask for a key to find out whether it is there.
        names = [str(name) for name in self.names]
        shown = ", ".join(map(repr, names[:_SHOWN])) or "nothing"
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        near = nearest(str(self.name), names)
        return f"{self.what} has no {self.name!r}{near}; it has {shown}{more}{self.hint}"


class MissingExtraError(FunctrainError, ImportError):
    """An optional package is needed and not installed."""


def warn(message: str, category: type[FunctrainWarning]) -> None:
    """Warn of the innermost line that is not functrain's, however deep in functrain this is called.

    Example:
        >>> from functrain.errors import ReplayWarning
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     warn("two batches are drawn and dropped", ReplayWarning)
        >>> [(each.category.__name__, str(each.message)) for each in caught]
        [('ReplayWarning', 'two batches are drawn and dropped')]
    """
    # From Python 3.12 on warnings.warn can do this: skip_file_prefixes.
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
