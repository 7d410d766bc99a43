"""The base of all errors and of all warnings."""

from __future__ import annotations


class FunctrainError(Exception):
    """Base of all errors raised by functrain itself."""


class FunctrainWarning(UserWarning):
    """Base of all warnings issued by functrain."""
