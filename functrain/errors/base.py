"""The bases of all errors and warnings, and the errors that any part may raise."""

from __future__ import annotations


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


class MissingExtraError(FunctrainError, ImportError):
    """An optional package is needed and not installed."""
