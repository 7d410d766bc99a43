"""Every failure functrain can name, one class each, under the nearest builtin."""

from __future__ import annotations

import math
from typing import Any


class FunctrainError(Exception):
    """Base of all errors raised by functrain itself."""


class FunctrainWarning(UserWarning):
    """Base of all warnings issued by functrain."""


class DonatedStateError(FunctrainError, RuntimeError):
    """A state was used after a donated step had consumed it."""

    def __init__(self, name: str = "state") -> None:
        super().__init__(
            f"state.{name} was read, but this TrainState was given to a donated step, which "
            "reuses its memory. Keep the state that the step returned, or take a copy first: "
            "functrain.copy(state)."
        )


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


class ConfigurationError(FunctrainError, ValueError):
    """A value given to a constructor makes no sense."""


class ModelError(FunctrainError, TypeError):
    """The model is not a module, cannot be copied, or is not ready."""


class ParameterMismatchError(FunctrainError, ValueError):
    """Names or shapes of given tensors do not fit the model."""

    def __init__(self, what: str, problems: list[str]) -> None:
        self.problems = problems
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{what}:\n{listed}")


class LossError(FunctrainError, ValueError):
    """The loss function returned something that cannot be trained on."""


class PrecisionError(FunctrainError, ValueError):
    """The precision is not one there is."""


class NotAStateError(FunctrainError, TypeError):
    """A step was given something else in the place of a state."""


class MicroBatchError(FunctrainError, ValueError):
    """More micro-batches were given to a step than the program accumulates."""

    def __init__(self, came: int, accumulate: int) -> None:
        super().__init__(
            f"{came} micro-batches were given to a step of a program with accumulate={accumulate}. "
            "Give at most that many, or wrap them to say that they are one step: "
            "functrain.MicroBatches([...])."
        )


class SparseGradientError(FunctrainError, TypeError):
    """A parameter received a sparse gradient."""

    def __init__(self, path: str, layout: object) -> None:
        super().__init__(
            f"parameter {path!r} received a gradient of layout {layout}; functrain's steps take "
            "dense gradients only. Make the layer with sparse=False."
        )


class NonFiniteError(FunctrainError, FloatingPointError):
    """Loss or gradients of a step were NaN or infinite, and the program's policy is to raise."""

    def __init__(self, step: int, loss: float, culprits: list[str]) -> None:
        self.step = step
        self.culprits = culprits
        named = ", ".join(culprits[:8]) + (", ..." if len(culprits) > 8 else "")
        where = (
            f"non-finite gradients in {len(culprits)} leaves: {named}"
            if culprits
            else "every gradient is finite by itself, but their common norm or the loss is not"
        )
        super().__init__(
            f"step {step}: the loss is {loss} and the update was not made ({where}). The state "
            "given to train_step is unchanged. Lower the learning rate, clip gradients "
            '(clip_norm=1.0), or choose nonfinite="skip".'
        )


class WeightsError(FunctrainError, ValueError):
    """eval_step was asked for weights that the state does not hold."""


class EmptyBatchWarning(FunctrainWarning):
    """A batch without samples was passed over."""


class ListenerError(FunctrainError, RuntimeError):
    """A listener raised an exception, or is none."""


class MissingMetricWarning(FunctrainWarning):
    """A rule waits for a metric that the evaluation did not give."""


class LogError(FunctrainError, ValueError):
    """The log of a run is shorter than it was, or damaged."""


class UnsupportedParameterError(FunctrainError, ValueError):
    """An optimizer was given a parameter or a gradient of a kind that it is not defined for."""


class HyperparameterError(FunctrainError, ValueError):
    """An optimizer was given a hyperparameter outside its range."""


class UnmatchedParameterError(FunctrainError, ValueError):
    """A parameter belongs to no group of an optimizer."""


class UnusedPatternError(FunctrainError, ValueError):
    """A group's pattern matches no parameter."""


class UnsupportedOptimizerError(FunctrainError, TypeError):
    """A class cannot be made into a pure optimizer."""


class ScheduleEndedWarning(FunctrainWarning):
    """A run goes on for longer than the learning rate schedule that it was begun with."""


class NonFiniteWarning(FunctrainWarning):
    """A run ended because of a non-finite loss or gradient."""


class RecipeChangedWarning(FunctrainWarning):
    """A run is continued with another recipe or in another environment."""


class UnsupportedLeafError(FunctrainError, TypeError):
    """A tree holds something that a checkpoint cannot give back exactly."""


class CheckpointWriteError(FunctrainError, OSError):
    """A checkpoint could not be written."""

    def __init__(self, path: object, cause: OSError) -> None:
        super().__init__(
            cause.errno,
            f"checkpoint {path} was not saved: {cause.strerror or cause}. "
            "Older checkpoints are untouched; mend the disk or choose another place and save again",
            cause.filename,
        )


class CheckpointSpaceError(CheckpointWriteError):
    """The disk has no room for a checkpoint; nothing was written."""


class CheckpointExistsError(FunctrainError, FileExistsError):
    """Something that may not be replaced stands where a checkpoint was to be saved."""


class CheckpointReadError(FunctrainError, OSError):
    """A checkpoint could not be read for a reason that is not damage."""

    def __init__(self, path: object, cause: OSError) -> None:
        super().__init__(
            cause.errno,
            f"checkpoint {path} could not be read: {cause.strerror or cause}. It may be sound: "
            "mend what the system says and read it again",
            cause.filename,
        )


class CheckpointCorruptError(FunctrainError, ValueError):
    """A checkpoint is damaged: its bytes are not those that were saved."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # A note, because the message is listed among others where several are damaged.
        self.add_note(
            "Take another checkpoint of the run (functrain ls RUN), or a copy of this one"
        )


class CheckpointFormatError(FunctrainError, ValueError):
    """A checkpoint is written in a format that this version cannot read."""


class CheckpointTypeError(FunctrainError, TypeError):
    """A checkpoint names a class that the caller did not allow."""


class CheckpointMismatchError(FunctrainError, ValueError):
    """A checkpoint is sound, but of another structure than asked for."""

    def __init__(self, path: object, problems: list[str]) -> None:
        self.problems = problems
        shown = problems[:40]
        rest = [f"... and {len(problems) - 40} more"] if len(problems) > 40 else []
        listed = "\n".join(f"  {problem}" for problem in [*shown, *rest])
        super().__init__(
            f"checkpoint {path} does not fit in {len(problems)} "
            f"place{'s' if len(problems) != 1 else ''}:\n{listed}"
        )
        self.add_note(
            "Load it into the structure it was saved from, or with rename=, cast=, partial= or "
            "only= of functrain.load; a run of another model needs another directory"
        )


class NoCheckpointError(FunctrainError, FileNotFoundError):
    """There is no checkpoint where one was asked for."""


class RunDirectoryError(FunctrainError, OSError):
    """A run directory cannot be used: no directory, unreadable or unwritable."""


class RunDirectoryBusyError(RunDirectoryError):
    """Another process is writing to the run directory."""


class CheckpointSkippedWarning(FunctrainWarning):
    """A damaged checkpoint was passed over."""


class CheckpointNotRemovedWarning(FunctrainWarning):
    """An old checkpoint could not be removed."""


class EmptyDatasetError(FunctrainError, ValueError):
    """Data has no samples, or gives no batches."""


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
    """There is no batch at a position."""


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
    """The data is not what it was when the run was saved."""


class ReplayWarning(FunctrainWarning):
    """Resuming within an epoch means drawing and dropping batches."""


class MissingExtraError(FunctrainError, ImportError):
    """An optional package is needed and not installed."""


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


class CheckpointingError(FunctrainError, RuntimeError):
    """The model uses reentrant activation checkpointing."""

    def __init__(self) -> None:
        super().__init__(
            "the model uses torch.utils.checkpoint with use_reentrant=True, which cannot give "
            "gradients as values (it writes them into .grad). Pass use_reentrant=False: the same "
            "memory is saved, and torch recommends it."
        )


class ExportError(FunctrainError, OSError):
    """The weights of a checkpoint could not be written to a file."""


class CheckpointChangedError(FunctrainError, RuntimeError):
    """A tensor was changed in place while it was being saved."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} was changed in place while it was being saved, so nothing was saved. Save in "
            "the background only what is not changed any more, or copies of it: "
            "Saver(store, staged=True)"
        )


class CheckpointTimeoutError(FunctrainError, TimeoutError):
    """A checkpoint was not on the disk in the time given."""

    def __init__(self, step: int | None, seconds: float) -> None:
        super().__init__(
            f"the checkpoint of step {step} is still being written after {seconds:g} s; it counts "
            "only if the process lives until it is done. Older checkpoints are untouched"
        )


class CheckpointNotSavedWarning(FunctrainWarning):
    """A save in the background failed, and nobody asked how it went."""


class CheckpointNotMirroredWarning(FunctrainWarning):
    """A checkpoint is on the disk, but its copy did not get to the remote store."""


class CheckpointDeviceError(FunctrainError, RuntimeError):
    """A checkpoint holds a generator of a device that is not here."""


class CaptureError(FunctrainError, RuntimeError):
    """The Python of a step cannot be written down as one graph.

    Attributes:
        where: the line of the user's code, where one is at fault.
    """

    def __init__(self, reason: str, where: str | None) -> None:
        self.where = where
        at = "" if where is None else f"\n  at {where}\n"
        super().__init__(
            f"compiled cannot take this step into one graph: {reason}.{at}"
            "  A graph is captured from one run of the loss and the model without data: they may "
            "not look at the values of tensors (if, float(), .item(), .numpy(), a mask as index) "
            "nor change anything besides. functrain.compiled(program, fallback=True) runs such a "
            "program eagerly"
        )


class BatchFormError(CaptureError):
    """There is something in a batch that a graph can neither take nor have built in."""


class CompilationError(FunctrainError, RuntimeError):
    """A captured step could not be compiled."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the step was captured, but could not be compiled: {reason}\n  On the CPU this takes "
            "a C++ compiler (Debian: apt install g++). functrain.compiled(program, fallback=True) "
            'goes on without, backend="eager" runs the graph as it is'
        )


class PromptError(FunctrainError, ValueError):
    """A text to go on with is empty, or is not made of what the model knows."""


class LogitsError(FunctrainError, ValueError):
    """No token can be drawn: logits are NaN or ``+inf``, or ``-inf`` everywhere."""

    def __init__(self, row: int, largest: float) -> None:
        self.row = row
        self.largest = largest
        reason = {
            math.inf: "reach +inf. A temperature close to 0 does that (0 takes the most likely)",
            -math.inf: "are -inf everywhere: the rules of sampling leave no token. Loosen them",
        }
        found = reason.get(largest, "are NaN. See whether the weights are finite: functrain show")
        super().__init__(f"row {row}: no token can be drawn, for its logits {found}")


class FallbackWarning(FunctrainWarning):
    """A program that was to be compiled runs eagerly."""


class RecompileWarning(FunctrainWarning):
    """A step is compiled for one more shape of batch."""


class SinkWarning(FunctrainWarning):
    """A sink of metrics could not be written to; training goes on without it."""


class FinderError(FunctrainError, ValueError):
    """A search for a hyperparameter came to nothing."""


class ImpurityError(FunctrainError, AssertionError):
    """Something that should be a pure function has changed, shared or read what it must not.

    Attributes:
        findings: one sentence for each thing found, the place first.
    """

    def __init__(self, subject: str, findings: list[str]) -> None:
        self.findings = findings
        lines = "".join(f"\n  {finding}" for finding in findings)
        super().__init__(f"{subject} is not pure:{lines}")


class ResumptionError(FunctrainError, AssertionError):
    """A run that was cut and resumed is not the run that was never cut.

    Attributes:
        step: the first step whose row in the log differs, or ``None`` where none does.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        self.step = step
        super().__init__(message)


class IncompleteError(FunctrainError, AssertionError):
    """Something outside the state influences a step and changes from step to step.

    Attributes:
        influences: these, as :class:`functrain.testing.Influence`.
    """

    def __init__(self, message: str, influences: list[Any]) -> None:
        self.influences = influences
        super().__init__(message)
