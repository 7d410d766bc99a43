"""Failures of configurations and searches."""

from __future__ import annotations

from functrain.errors.base import FunctrainError


class ConfigError(FunctrainError, ValueError):
    """A configuration is wrong; the message is one line that names the key.

    Attributes:
        where: the key, where one is at fault; the message begins with it.
    """

    def __init__(self, message: str, where: str | None = None) -> None:
        self.where = where
        super().__init__(f"{where}: {message}" if where else message)


class ConfigChangedError(FunctrainError, ValueError):
    """A run directory holds a run of another configuration."""


class SearchSpaceError(FunctrainError, ValueError):
    """A parameter of a search is no range of numbers and no list of choices."""


class SearchError(FunctrainError, ValueError):
    """A search cannot begin or go on as it was asked to; the message names the option."""


class SearchChangedError(FunctrainError, ValueError):
    """A directory holds a search for something else."""
