"""Explain why a step failed: its state is of another program, or the user's code raised."""

from __future__ import annotations

from functrain.core.batch import Batch
from functrain.core.recipe import Fixed
from functrain.core.state import TrainState
from functrain.diagnosis.fitting_state import explain_mismatch
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
    error: Exception, fixed: Fixed, state: TrainState, step: int, parts: list[Batch]
) -> None:
    """Explain an error of a step as far as that is possible; the caller raises it.

    Raises:
        ParameterMismatchError: the state has other tensors than those that the program makes.
        UnsupportedError: they have no values, or torch does not train them.
    """
    explain_mismatch(error, fixed, state)
    if parts:
        explain_out_of_memory(error, step, parts)
        explain_forward(error, fixed.model.module, f"in the step after step {step}", parts[0])
