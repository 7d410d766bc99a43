"""Failures of a run, its listeners, its directory and its log."""

from __future__ import annotations

from functrain.errors.base import FunctrainError, FunctrainWarning


class ListenerError(FunctrainError, RuntimeError):
    """A listener raised an exception, or is none."""


class LogError(FunctrainError, ValueError):
    """The log of a run is shorter than it was, or damaged."""


class RunDirectoryError(FunctrainError, OSError):
    """A run directory cannot be used: no directory, unreadable or unwritable."""


class RunDirectoryBusyError(RunDirectoryError):
    """Another process is writing to the run directory."""


class RunChangedError(FunctrainError, ValueError):
    """A directory holds a run of another seed, or an ended one of another recipe or other data."""


class RecipeChangedWarning(FunctrainWarning):
    """A run is continued with another recipe, with other data or in another environment."""


class BeyondLimitWarning(FunctrainWarning):
    """A run had gone on for longer already than it is now asked to."""


class UnusedStateWarning(FunctrainWarning):
    """A state was given to a run that goes on from its own checkpoint."""


class MissingExtraError(FunctrainError, ImportError):
    """An optional package is needed and not installed."""


class SinkWarning(FunctrainWarning):
    """A sink of metrics could not be written to; training goes on without it."""


class FinderError(FunctrainError, ValueError):
    """A search for a hyperparameter came to nothing."""
