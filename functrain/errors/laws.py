"""What the checks of functrain.testing find."""

from __future__ import annotations

from typing import Any

from functrain.errors.base import FunctrainError


class ImpurityError(FunctrainError, AssertionError):
    """Something that should be a pure function has changed, shared or read what it must not.

    Attributes:
        findings: one sentence for each thing found, the place first.
    """

    def __init__(self, subject: str, findings: list[str], advice: str = "") -> None:
        self.findings = findings
        lines = "".join(f"\n  {line}" for line in [*findings, advice] if line)
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
