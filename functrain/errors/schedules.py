"""Failures of schedules, durations and positions."""

from __future__ import annotations

from functrain.errors.base import FunctrainError, FunctrainWarning


class InvalidScheduleError(FunctrainError, ValueError):
    """A schedule was given a field it cannot work with."""


class UnknownHorizonError(FunctrainError, ValueError):
    """A schedule that ends with the run was asked for an lr before the run's length was known."""


class MetricNeededError(FunctrainError, TypeError):
    """A metric-driven schedule was asked for the lr at a step, which no step number determines."""


class NotAScheduleError(FunctrainError, TypeError):
    """A value given as a learning rate is neither a number nor a schedule."""


class ScheduleStateError(FunctrainError, TypeError):
    """A schedule's state is not plain numbers, or was made by a schedule of another kind."""


class InvalidDurationError(FunctrainError, ValueError):
    """A duration is not a positive amount of steps, epochs, samples or minutes."""


class InvalidPositionError(FunctrainError, ValueError):
    """A position in a run cannot exist: a negative count, or a batch beyond its epoch's end."""


class UnknownEpochLengthError(FunctrainError, ValueError):
    """A fraction of an epoch was asked for where the number of batches in an epoch is unknown."""


class ScheduleEndedError(FunctrainError, ValueError):
    """The rest of a run would train at a rate of exactly zero, its schedule having ended."""


class ScheduleEndedWarning(FunctrainWarning):
    """A run goes on for longer than its learning rate schedule, or a loop at a rate of zero."""


class MissingMetricError(FunctrainError, LookupError):
    """Early stopping, best checkpoint or schedule go by a metric that no evaluation gives."""


class MissingMetricWarning(FunctrainWarning):
    """An evaluation did not give a metric that earlier ones gave, or none was ever finite."""
