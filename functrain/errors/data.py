"""Failures of data and of what reads it."""

from __future__ import annotations

from functrain.errors.base import FunctrainError, FunctrainWarning


class EmptyDatasetError(FunctrainError, ValueError):
    """Data has no samples, gives no batches, or only empty ones."""


class NoFullBatchError(FunctrainError, ValueError):
    """Incomplete batches are dropped, and there are only such."""

    def __init__(self, samples: int, batch_size: int) -> None:
        super().__init__(
            f"drop_last=True leaves no batch: the dataset has {samples} samples, less than one "
            f"batch of {batch_size}. Use a smaller batch_size or drop_last=False."
        )


class DataOptionError(FunctrainError, ValueError):
    """An option of a kind of data has a value it cannot have."""

    def __init__(self, name: str, least: int, value: object, of: str = "Batches") -> None:
        kind = "a number" if isinstance(value, float) else "an int"
        super().__init__(f"{of}({name}=...) must be {kind} of at least {least}, got {value!r}")


class ColumnError(FunctrainError, TypeError):
    """A column of a dataset is no tensor or array, or a dataset cannot be read as columns."""


class ColumnLengthError(FunctrainError, ValueError):
    """Two columns of a dataset differ in length."""

    def __init__(self, first: str, length: int, other: str, other_length: int) -> None:
        super().__init__(
            f"columns of a dataset must be equally long, but {first} has {length} rows and "
            f"{other} has {other_length}"
        )


class NotADatasetError(FunctrainError, TypeError):
    """Batches was given something without a length or without samples by index."""


class BatchIndexError(FunctrainError, IndexError):
    """There is no batch at a position, or a sampler gives too few samples."""


class WorkerDiedError(FunctrainError, RuntimeError):
    """A worker process that reads data ended without being asked to."""


class WorkerTimeoutError(FunctrainError, TimeoutError):
    """Worker processes that read data gave no batch in the time given."""


class MixtureError(FunctrainError, ValueError):
    """A mixture cannot be made of such sources, weights or options."""


class PackingError(FunctrainError, ValueError):
    """Documents cannot be packed into rows of the length asked for."""


class NotBatchesError(FunctrainError, TypeError):
    """What was given as data does not give batches."""


class DataExhaustedError(FunctrainError, RuntimeError):
    """Data that can be read only once was needed again."""


class DataChangedError(FunctrainError, RuntimeError):
    """The data is not what it was when the run was saved, or ends before the state's place."""


class ReplayWarning(FunctrainWarning):
    """Resuming within an epoch means drawing and dropping batches."""
