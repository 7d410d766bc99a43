"""A state of another program: refused where a run begins, told of where a step failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from functrain import arguments, tree
from functrain.errors import ParameterMismatchError
from functrain.pretrained import mismatches
from functrain.state import TrainState, is_consumed

if TYPE_CHECKING:
    from functrain.program import Program


def refuse(program: Program, state: object) -> None:
    """Refuse to begin a run with a state whose parameters are not those of the program.

    Raises:
        NotAStateError: it is no state at all.
        ParameterMismatchError: names or shapes do not fit; all of them are listed.
    """
    if not isinstance(state, TrainState):
        raise arguments.not_a_state(state, None)
    params = program.fixed.model.params
    problems = mismatches(state.params, params, params)
    if problems:
        raise ParameterMismatchError(
            "the state is of another model than the program's; begin with one that the program "
            "made, program.init()",
            problems,
        )


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
    return _paths(ours) != _paths(theirs)


def _paths(part: Any) -> list[tree.Path]:
    """Where the leaves are, but for the counts of skipped parameters, which come and go."""
    return [path for path, _ in tree.items(part) if "per_parameter" not in path]
