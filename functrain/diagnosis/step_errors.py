"""Explain why a step failed: its state is of another program, or the user's code raised."""

from __future__ import annotations

from typing import Any

from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.diagnosis.fitting_state import explain_mismatch, explain_schedule
from functrain.diagnosis.forward_errors import explain_forward, explain_out_of_memory
from functrain.errors import UnsupportedError


def not_a_state(given: object, batch: object, expected: str = "TrainState") -> UnsupportedError:
    """Return the error for a value that is not a state of the class ``expected``."""

    def is_one(value: object) -> bool:
        return type(value).__name__ == expected

    if isinstance(given, tuple) and given and is_one(given[0]):
        hint = "train_step returns two values: state, metrics = program.train_step(state, batch)"
    elif is_one(batch):
        hint = "the state comes first, the batch second"
    elif is_one(getattr(given, "state", None)):  # what fit returns
        hint = "give its state, run.state"
    else:
        hint = "begin with state = program.init(seed=0)"
    return UnsupportedError(f"expected a {expected}, got a {type(given).__name__}: {hint}")


def explain_step(
    error: Exception, program: Program, state: TrainState, step: int, parts: Any
) -> None:
    """Explain an error of a step as far as that is possible; the caller raises it.

    Raises:
        ParameterMismatchError: the state has other tensors than those that the program makes.
        UnsupportedError: they have no values, or torch does not train them.
    """
    if isinstance(error, KeyError):
        explain_schedule(error, program.fixed, state)
    explain_mismatch(error, program.fixed, state)
    held = parts if program.sharded is None else list(parts.parts.values())
    if held:
        explain_out_of_memory(error, step, held)
        module = program.fixed.model.module
        explain_forward(error, module, f"in the step after step {step}", held[0])
