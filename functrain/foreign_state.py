"""A step that failed because its state is of another program, told so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from functrain import tree
from functrain.state import TrainState, is_consumed

if TYPE_CHECKING:
    from functrain.program import Program


def told(error: Exception, program: Program, state: TrainState) -> None:
    """Add to an error in which parts a state is not one that the program makes.

    Args:
        error: that a step with the state raised; left alone where the state fits.
        program: whose step it was.
        state: that it was given.
    """
    if is_consumed(state):
        return
    expected = program.init(state.rng.seed)
    parts = [
        name for name in ("params", "buffers", "optimizer", "ema") if _differ(name, expected, state)
    ]
    if parts:
        error.add_note(
            f"The state is not one of this program: its {', '.join(parts)} are of another model, "
            "optimizer or ema=. To go on from its weights: "
            "program.init(params={**state.params, **state.buffers})"
        )


def _differ(name: str, expected: TrainState, state: TrainState) -> bool:
    ours, theirs = getattr(expected, name), getattr(state, name)
    return [path for path, _ in tree.items(ours)] != [path for path, _ in tree.items(theirs)]
