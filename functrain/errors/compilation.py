"""Failures in making a step one graph."""

from __future__ import annotations

from functrain.errors.base import FunctrainError, FunctrainWarning


class CaptureError(FunctrainError, RuntimeError):
    """The Python of a step cannot be written down as one graph.

    Attributes:
        where: the line of the user's code, where one is at fault.
        inside: the line of an installed package that it led to, if there is one.
    """

    def __init__(self, reason: str, where: str | None, inside: str | None = None) -> None:
        self.where, self.inside = where, inside
        lines = [f"  at {where}\n"] if where else []
        lines += [f"  in {inside}\n"] if inside else []
        at = "\n" + "".join(lines) if lines else ""
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


class CompileCacheWarning(FunctrainWarning):
    """What is compiled cannot be kept for later processes."""


class FallbackWarning(FunctrainWarning):
    """A program that was to be compiled runs eagerly."""


class RecompileWarning(FunctrainWarning):
    """A step is compiled for one more shape of batch."""
