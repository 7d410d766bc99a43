"""Failures of a run and its processes, and of configurations, searches, finders and generation."""

from __future__ import annotations

import math

from functrain.errors.base import FunctrainError, FunctrainWarning


class UnknownLengthError(FunctrainError, ValueError):
    """The length of a run or of an epoch is needed and not known."""


class ScheduleStateError(FunctrainError, TypeError):
    """A schedule needs a state, or was given one that is not plain or is of another schedule."""


class ScheduleEndedError(FunctrainError, ValueError):
    """The rest of a run would train at a rate of zero because its schedule has ended."""


class ScheduleEndedWarning(FunctrainWarning):
    """A run continues beyond its learning rate schedule, or a loop at a rate of zero."""


class MissingMetricError(FunctrainError, LookupError):
    """Early stopping, best checkpoint or schedule need a metric that no evaluation gives."""


class MissingMetricWarning(FunctrainWarning):
    """An evaluation did not give a metric that earlier ones gave, or none was ever finite."""


class EmptyDatasetError(FunctrainError, ValueError):
    """Data has no samples, gives no batches, or only empty ones."""


class BatchIndexError(FunctrainError, IndexError):
    """There is no batch at a position, or a sampler gives too few samples."""


class WorkerError(FunctrainError, RuntimeError):
    """A worker process that reads data ended unexpectedly, or gave no batch within the timeout."""


class DataChangedError(FunctrainError, RuntimeError):
    """Data differs from the saved run's, ends before its place or length, or is read only once."""


class LengthWarning(FunctrainWarning):
    """A loader gives more batches than its length says, and the others are not trained on."""


class ReplayWarning(FunctrainWarning):
    """Resuming within an epoch means drawing and dropping batches."""


class ListenerError(FunctrainError, RuntimeError):
    """A listener raised an exception or wrote to the state, or an object is not a listener.

    Attributes:
        wrote_state: whether a listener wrote to the state of the run, which is not saved then.
    """

    wrote_state = False


class SinkWarning(FunctrainWarning):
    """A sink of metrics could not be written to; training goes on without it."""


class LogError(FunctrainError, ValueError):
    """The log of a run is shorter than it was, or damaged."""


class RunDirectoryError(FunctrainError, OSError):
    """A run directory cannot be used: no directory, unreadable or unwritable."""


class RunDirectoryBusyError(RunDirectoryError):
    """Another process, or another run of this one, is writing to the run directory."""


class RunChangedError(FunctrainError, ValueError):
    """A directory holds another run or search: of another seed, recipe, configuration or data."""


class RecipeChangedWarning(FunctrainWarning):
    """A run is continued with another recipe, with other data or in another environment."""


class ResumeWarning(FunctrainWarning):
    """A resumed run does not use the given state, or is already longer than asked for."""


class ConfigError(FunctrainError, ValueError):
    """A configuration file is wrong; the message is one line that names the key.

    It is of YAML files and their overrides; of wrong arguments in Python, see
    :class:`ConfigurationError`.

    Attributes:
        where: the key, where one is at fault; the message begins with it.
    """

    def __init__(self, message: str, where: str | None = None) -> None:
        self.where = where
        super().__init__(f"{where}: {message}" if where else message)


class FinderError(FunctrainError, ValueError):
    """A search for a hyperparameter found none."""


class LogitsError(FunctrainError, ValueError):
    """No token can be drawn: logits are NaN or ``+inf``, or ``-inf`` everywhere.

    Attributes:
        row: the row of the batch.
        largest: the largest logit of the row.
    """

    def __init__(self, row: int, largest: float) -> None:
        self.row = row
        self.largest = largest
        reason = {
            math.inf: "reach +inf. A temperature close to 0 does that (0 takes the most likely)",
            -math.inf: "are -inf everywhere: the rules of sampling leave no token. Loosen them",
        }
        found = reason.get(largest, "are NaN. See whether the weights are finite: functrain show")
        super().__init__(f"row {row}: no token can be drawn, for its logits {found}")


class ProcessGroupError(FunctrainError, ConnectionError):
    """A process could not join the process group that its launcher describes, or has left it."""


class RankFailedError(FunctrainError, RuntimeError):
    """Another rank raised an exception, ended or does not answer, so no rank can go on.

    Attributes:
        rank: the first rank that failed; ``None`` if only the connection between ranks failed.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        self.rank = rank
        super().__init__(message)


class RankMismatchError(FunctrainError, ValueError):
    """Ranks do not do the same: recipe, data, code or batch differ, or only some take part."""
