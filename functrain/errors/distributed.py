"""Failures of several processes that train together."""

from __future__ import annotations

from functrain.errors.base import FunctrainError


class ProcessGroupError(FunctrainError, ConnectionError):
    """A process could not join the process group that its launcher describes."""


class RankFailedError(FunctrainError, RuntimeError):
    """Another rank raised an exception, ended or does not answer, so no rank can go on.

    Attributes:
        rank: the first rank that failed; ``None`` if only the connection between ranks failed.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        self.rank = rank
        super().__init__(message)


class RankMismatchError(FunctrainError, ValueError):
    """Ranks that must agree on a value have different ones: recipe, data, code or batch."""
