"""A state of another program: refused where a run begins, and named where a step failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from functrain import tree
from functrain.core import arguments
from functrain.core.precision import initial_loss_scale
from functrain.core.pretrained import mismatches
from functrain.core.state import Tensors, TrainState, is_consumed
from functrain.errors import ParameterMismatchError
from functrain.optim.snapshot import TORCH_STATE

if TYPE_CHECKING:
    from functrain.core.program import Program

_SHOWN = 12
_REMEDY = (
    "Train on with a state that the program made, program.init(). Weights are taken over by "
    "program.init(params={**state.params, **state.buffers}), and with them "
    "attrs.evolve(..., counters=state.counters, rng=state.rng) goes on at the same step"
)


def refuse(program: Program, state: object) -> None:
    """Refuse to begin a run with a state whose tensors are not those of the program.

    Raises:
        UnsupportedError: it is no state at all.
        ParameterMismatchError: names or shapes do not fit; they are listed.
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
    problems = _problems(program, state)
    if problems:
        raise _mismatch(problems)


def explain(error: Exception, program: Program, state: TrainState) -> None:
    """Raise an error of our own in place of another where the state is not one of the program.

    Args:
        error: that a step with the state raised.
        program: whose step it was.
        state: that it was given.

    Raises:
        ParameterMismatchError: the state has other tensors than those that the program makes.
    """
    if is_consumed(state):
        return
    known = program.fixed.model.params
    problems = mismatches(state.params, known, known) or _problems(program, state)
    if problems:
        raise _mismatch(problems) from error


def _mismatch(problems: list[str]) -> ParameterMismatchError:
    shown, more = problems[:_SHOWN], len(problems) - _SHOWN
    return ParameterMismatchError(
        "the state is of a program that trains other parameters, or has another model, optimizer, "
        f"ema= or precision=. {_REMEDY}. What differs",
        [*shown, f"and {more} more"] if more > 0 else shown,
    )


def _problems(program: Program, state: TrainState) -> list[str]:
    """What the state lacks, or has besides, of what the program makes for its parameters."""
    return [
        f"{kind} {tree.path_string((part, *path))!r}"
        for part, expected in _expected(program, state).items()
        for kind, path in _differences(expected, getattr(state, part))
    ]


def _expected(program: Program, state: TrainState) -> dict[str, Any]:
    """The parts of a state that depend on what is trained, made without memory where possible."""
    recipe = program.recipe
    trained = {path: state.params[path] for path in program.fixed.trainable}
    parts: dict[str, Any] = {"loss_scale": initial_loss_scale(recipe.precision, state.device)}
    try:
        parts |= _of(program, {path: value.to("meta") for path, value in trained.items()})
    except RuntimeError:  # an optimizer may look at values, which "meta" tensors do not have
        parts |= _of(program, trained)
    return parts


def _of(program: Program, trained: Tensors) -> dict[str, Any]:
    recipe = program.recipe
    parts = {"ema": None if recipe.ema is None else recipe.ema.init(trained)}
    return {"optimizer": recipe.optimizer.init(trained), **parts}


def _differences(expected: Any, given: Any) -> Iterator[tuple[str, tree.Path]]:
    ours, theirs = _paths(expected), _paths(given)
    unexpected = {path for path in theirs - ours if "group" not in path}  # steps may add to it
    yield from (("missing", path) for path in sorted(ours - theirs, key=repr))
    yield from (("unexpected", path) for path in sorted(unexpected, key=repr))


def _paths(part: Any) -> set[tree.Path]:
    """Where the leaves are, but for the counts of skipped parameters, which come and go."""
    leaves = () if part is None else tree.items(_lasting(part))
    return {path for path, _ in leaves if "per_parameter" not in path}


def _lasting(part: Any) -> Any:
    """What has its place before the first step: of a torch optimizer's state only its group."""
    if not isinstance(part, Mapping):
        return part
    if part.keys() == TORCH_STATE:
        return {"group": part["group"]}
    return {key: _lasting(value) for key, value in part.items()}
