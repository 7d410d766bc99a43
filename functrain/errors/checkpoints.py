"""Failures in saving, loading and keeping checkpoints."""

from __future__ import annotations

from functrain.errors.base import FunctrainError, FunctrainWarning


class NoCheckpointError(FunctrainError, FileNotFoundError):
    """There is no checkpoint where one was asked for."""


class CheckpointMismatchError(FunctrainError, ValueError):
    """A checkpoint is valid, but of another structure than asked for."""

    def __init__(
        self,
        path: object,
        problems: list[str],
        remedy: str = "Load it into the structure it was saved from, or with rename=, cast=, "
        "partial= or only= of functrain.load",
    ) -> None:
        self.path, self.problems = path, problems
        shown = problems[:40]
        rest = [f"... and {len(problems) - 40} more"] if len(problems) > 40 else []
        listed = "\n".join(f"  {problem}" for problem in [*shown, *rest])
        super().__init__(
            f"checkpoint {path} does not fit in {len(problems)} "
            f"place{'s' if len(problems) != 1 else ''}:\n{listed}"
        )
        self.add_note(remedy)


class CheckpointTypeError(FunctrainError, TypeError):
    """A checkpoint names a class that the caller did not allow."""


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


class CheckpointReadError(FunctrainError, OSError):
    """A checkpoint could not be read for a reason that is not damage."""

    def __init__(self, path: object, cause: OSError) -> None:
        super().__init__(
            cause.errno,
            f"checkpoint {path} could not be read: {cause.strerror or cause}. It may be "
            "valid: fix the problem that the system reports and read it again",
            cause.filename,
        )


class CheckpointWriteError(FunctrainError, OSError):
    """A checkpoint or an export of its weights could not be written."""

    def __init__(self, path: object, cause: OSError) -> None:
        super().__init__(
            cause.errno,
            f"{path} was not saved: {cause.strerror or cause}. Everything saved before is "
            "untouched; repair the disk or choose another place and save again",
            cause.filename,
        )


class CheckpointExistsError(FunctrainError, FileExistsError):
    """The path of a new checkpoint exists and may not be replaced."""


class CheckpointChangedError(FunctrainError, RuntimeError):
    """A tensor was changed in place while it was being saved."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} was changed in place while it was being saved, so nothing was saved. In "
            "the background, save only tensors that no longer change, or copies of them: "
            "Saver(store, staged=True)"
        )


class CheckpointTimeoutError(FunctrainError, TimeoutError):
    """A checkpoint was not on the disk within the timeout."""

    def __init__(self, step: int | None, seconds: float) -> None:
        super().__init__(
            f"the checkpoint of step {step} is still being written after {seconds:g} s; it counts "
            "only if the process lives until it is done. Older checkpoints are untouched"
        )


class PartialLoadWarning(FunctrainWarning):
    """Only a part of a checkpoint was loaded, or only a part of ``like`` was found in it."""


class CheckpointSkippedWarning(FunctrainWarning):
    """A damaged checkpoint was skipped."""


class CheckpointWriteWarning(FunctrainWarning):
    """A checkpoint was not saved, copied or removed in the background; training continues."""
