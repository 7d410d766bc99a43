"""Failures of programs: making one, its steps, compiling them, and the checks of purity."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import exceptions

from functrain.errors.base import FunctrainError, FunctrainWarning


class DonatedStateError(FunctrainError, RuntimeError):
    """A state was used after a donated step had consumed it."""

    def __init__(self, name: str = "state") -> None:
        super().__init__(
            f"state.{name} was read, but this TrainState was given to a donated step, which "
            "reuses its memory. Keep the state that the step returned, or take a copy first: "
            "functrain.copy(state)."
        )


class StateAssignmentError(FunctrainError, exceptions.FrozenInstanceError):
    """A field of a state was assigned to, which is a value."""

    def __init__(self, name: str) -> None:
        AttributeError.__init__(  # that of attrs takes no message
            self,
            f"state.{name} cannot be assigned to: a state is a value, and other code may hold it. "
            f"Make another one from it: state = attrs.evolve(state, {name}=...)",
        )


class ModelError(FunctrainError, TypeError):
    """The model is not a module, cannot be copied, is not ready, or checkpoints reentrantly."""


class ParameterMismatchError(FunctrainError, ValueError):
    """Names or shapes of tensors do not fit the model, or a state belongs to another program."""

    def __init__(self, what: str, problems: list[str]) -> None:
        self.problems = problems
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{what}:\n{listed}")


class LossError(FunctrainError, ValueError):
    """The loss function returned something that cannot be trained on."""


class StepResultError(FunctrainError, ValueError):
    """A step or an evaluation of one's own took or returned something that a run cannot use."""

    def __init__(self, what: str, problems: Sequence[str] = ()) -> None:
        self.problems = problems = list(problems)
        shown = [*problems[:12], *([f"and {len(problems) - 12} more"] if problems[12:] else [])]
        super().__init__(what + "".join(f"\n  {problem}" for problem in shown))


class RandomnessError(FunctrainError, RuntimeError):
    """A step drew random numbers that do not follow from its state."""


class BatchSizeError(FunctrainError, ValueError):
    """A number depends on how many samples are in a batch, and the batch does not show it."""


class NonFiniteError(FunctrainError, FloatingPointError):
    """Loss or gradients of a step were NaN or infinite, and the program's policy is to raise.

    Attributes:
        step: the step.
        culprits: paths of the gradients that are not finite.
        place: where the first NaN or infinity is from, if the program has ``detect_anomaly``.
    """

    def __init__(
        self,
        step: int,
        loss: float | list[float],
        culprits: list[str],
        members: int = 0,
        place: str | None = None,
        own_step: bool = False,
        overflows: int = 0,
    ) -> None:
        self.step = step
        self.culprits = culprits
        self.place = place
        named = ", ".join(culprits[:8]) + (", ..." if len(culprits) > 8 else "")
        where = (
            f"non-finite gradients in {len(culprits)} leaves: {named}"
            if culprits
            else "every gradient is finite by itself, but their common norm or the loss is not"
        )
        if members:
            where = f"no member of the {members} has finite loss and gradients"
        found = "" if place is None else f" {place[0].upper()}{place[1:]}."
        hint = ", or find the operation by detect_anomaly=True" if place is None else ""
        if own_step:
            super().__init__(
                f"step {step}: the custom step reported a loss of {loss}, and the tree that it "
                "returned was not taken. The state given to train_step is unchanged. Correct the "
                'step; or choose nonfinite="skip" of functrain.custom, which goes on with the tree '
                'of before, or "ignore" where such a loss is intended.'
            )
            return
        if overflows:
            super().__init__(
                f"step {step}: the loss is {loss}, and the gradients of {overflows} steps in a row "
                "overflowed although the loss scale is at its least, 1, so no update is made any "
                'more. Train with precision="bf16", make the loss smaller, or find the operation '
                "by detect_anomaly=True."
            )
            return
        super().__init__(
            f"step {step}: the loss is {loss} and the update was not made ({where}).{found} The "
            "state given to train_step is unchanged. Lower the learning rate, clip gradients "
            f'(clip_norm=1.0), or choose nonfinite="skip"{hint}.'
        )


class EmptyBatchWarning(FunctrainWarning):
    """A batch without samples was skipped."""


class ModuleStateWarning(FunctrainWarning):
    """A loss or forward uses what is in no state: attributes, or parameters outside the model."""


class NonFiniteWarning(FunctrainWarning):
    """A run ended because of a non-finite loss or gradient, or it is said where one began."""


class CaptureError(FunctrainError, RuntimeError):
    """The Python of a step cannot be captured as one graph, or its batch cannot be an input.

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
            "nor change anything else. functrain.compiled(program, fallback=True) runs such a "
            "program eagerly"
        )


class CompilationError(FunctrainError, RuntimeError):
    """A captured step could not be compiled."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the step was captured, but could not be compiled: {reason}\n  On the CPU this takes "
            "a C++ compiler (Debian: apt install g++). functrain.compiled(program, fallback=True) "
            'runs the step eagerly, backend="eager" runs the graph without compiling it'
        )


class FallbackWarning(FunctrainWarning):
    """A program that was to be compiled runs eagerly."""


class RecompileWarning(FunctrainWarning):
    """A step is compiled once more, for another shape of batch or in every later process."""


class ImpurityError(FunctrainError, AssertionError):
    """A pure function changed, shared or read something that it must not.

    Attributes:
        findings: one sentence for each thing found, the place first.
    """

    def __init__(self, subject: str, findings: list[str], advice: str = "") -> None:
        self.findings = findings
        lines = "".join(f"\n  {line}" for line in [*findings, advice] if line)
        super().__init__(f"{subject} is not pure:{lines}")


class ResumptionError(FunctrainError, AssertionError):
    """A run that was cut and resumed differs from the run that was never cut.

    Attributes:
        step: the first step whose row in the log differs, or ``None`` where none does.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        self.step = step
        super().__init__(message)


class IncompleteError(FunctrainError, AssertionError):
    """Something outside of state and batch changes a step.

    Attributes:
        condition: under which the step gives other bytes, such as "when it is repeated".
        leaf: the first leaf of the new state or the metrics that differs.
        changed: the places in attributes, globals, closures and defaults that steps changed.
    """

    def __init__(self, message: str, condition: str, leaf: str, changed: list[str]) -> None:
        self.condition, self.leaf, self.changed = condition, leaf, changed
        super().__init__(message)
