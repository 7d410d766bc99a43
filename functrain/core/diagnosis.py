"""Explain why a step failed: its state is of another program, or the user's code raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from functrain import tree
from functrain.core import step
from functrain.core.batch import Batch
from functrain.core.forward_errors import explain_forward, explain_out_of_memory
from functrain.core.optimizer import TORCH_STATE
from functrain.core.precision import initial_loss_scale
from functrain.core.pretrained import mismatches
from functrain.core.recipe import Fixed
from functrain.core.state import Tensors, TrainState, is_consumed
from functrain.errors import ParameterMismatchError, UnsupportedError

_SHOWN = 12
_REMEDY = (
    "Continue from a state that the program made, program.init(). To start with these weights, "
    "program.init(params={**state.params, **state.buffers}); to continue at its step as well, "
    "attrs.evolve(..., counters=state.counters, rng=state.rng)"
)
_ONE_STEP = "state, metrics = program.train_step(state, batch), which is the whole step"
_WEIGHTS = "state.params; functrain.save(path, state) writes a file"
_MODEL = "with program.evaluating(state) as model: model(x)"
# Names that users of other libraries look for on a program, and the call that stands for each.
PROGRAM_ATTRIBUTES = {
    **dict.fromkeys(("zero_grad", "step", "backward", "training_step", "train"), _ONE_STEP),
    **dict.fromkeys(("state_dict", "parameters", "named_parameters", "save"), _WEIGHTS),
    **dict.fromkeys(("model", "forward", "predict", "apply"), _MODEL),
    **dict.fromkeys(("to", "cuda", "cpu", "device"), "program.init(device=...)"),
    "load_state_dict": "program.init(params=...), or functrain.load(path, like=state)",
    "eval": "program.eval_step(state, batch)",
    "validation_step": "program.eval_step(state, batch)",
    "fit": 'functrain.fit(program, data, until="10 epochs")',
    "evaluate": "functrain.evaluate(program, state, data)",
    "compile": "functrain.compiled(program)",
    "optimizer": "program.recipe.optimizer",
    "loss": "program.recipe.loss",
}


def not_a_state(given: object, batch: object) -> UnsupportedError:
    """Return the error for a value that is not a state."""
    if isinstance(given, tuple) and given and isinstance(given[0], TrainState):
        hint = "train_step returns two values: state, metrics = program.train_step(state, batch)"
    elif isinstance(batch, TrainState):
        hint = "the state comes first, the batch second"
    elif isinstance(getattr(given, "state", None), TrainState):  # what fit returns
        hint = "give its state, run.state"
    else:
        hint = "begin with state = program.init(seed=0)"
    return UnsupportedError(f"expected a TrainState, got a {type(given).__name__}: {hint}")


def refuse_members(state: TrainState) -> None:
    """Refuse the state of a population, whose tensors would broadcast into numbers of no member.

    Raises:
        UnsupportedError: the state is of all its members.
    """
    if state.counters.skipped.ndim:
        raise UnsupportedError(
            "expected the state of one program, got that of a population. Take a member out, "
            "pop.member(state, i), for the program of that member, pop.programs[i]; or give the "
            "state to pop.train_step or pop.eval_step"
        )


def refuse_vmap(device_step: step.DeviceStep) -> None:
    """Refuse an eager step below ``torch.func.vmap``, where autograd and kernels do not work.

    Raises:
        UnsupportedError: the step is below one.
    """
    transform = torch._C._functorch.peek_interpreter_stack()
    if transform is None or not step.is_eager(device_step):
        return
    if transform.key() == torch._C._functorch.TransformType.Vmap:
        raise UnsupportedError(
            "train_step was called below torch.func.vmap. Train many states by one step as a "
            "population: pop = functrain.population(program, seeds=[...]); state = "
            "pop.stacked([state, ...]); pop.train_step(state, batch)"
        )


def check_state(fixed: Fixed, state: object) -> None:
    """Refuse a state whose tensors are not those of the program.

    Raises:
        UnsupportedError: it is no state at all.
        ParameterMismatchError: names or shapes do not fit; they are listed.
    """
    if not isinstance(state, TrainState):
        raise not_a_state(state, None)
    params = fixed.model.params
    problems = mismatches(state.params, params, params)
    if problems:
        raise ParameterMismatchError(
            "the state is of another model than the program's; begin with one that the program "
            "made, program.init()",
            problems,
        )
    problems = _problems(fixed, state)
    if problems:
        raise _mismatch(problems)


def explain_step(
    error: Exception, fixed: Fixed, state: TrainState, step: int, parts: list[Batch]
) -> None:
    """Explain an error of a step as far as that is possible; the caller raises it.

    Args:
        error: that a step with the state raised.
        fixed: of the program whose step it was.
        state: what it was given; a donated step may have consumed it.
        step: updates done before.
        parts: the micro-batches.

    Raises:
        ParameterMismatchError: the state has other tensors than those that the program makes.
    """
    if isinstance(error, KeyError | AttributeError | TypeError):
        explain_mismatch(error, fixed, state)
    if parts:
        explain_out_of_memory(error, step, parts)
        explain_forward(error, fixed.model.module, f"in the step after step {step}", parts[0])


def explain_mismatch(error: Exception, fixed: Fixed, state: TrainState) -> None:
    """Raise an error of our own in place of another where the state is of another program.

    Args:
        error: that a step with the state raised.
        fixed: of the program whose step it was.
        state: what it was given.

    Raises:
        ParameterMismatchError: the state has other tensors than those that the program makes.
    """
    if is_consumed(state):
        return
    known = fixed.model.params
    problems = mismatches(state.params, known, known) or _problems(fixed, state)
    if problems:
        raise _mismatch(problems) from error


def _mismatch(problems: list[str]) -> ParameterMismatchError:
    shown, more = problems[:_SHOWN], len(problems) - _SHOWN
    return ParameterMismatchError(
        "the state is of a program that trains other parameters, or has another model, optimizer, "
        f"ema= or precision=. {_REMEDY}. These differ",
        [*shown, f"and {more} more"] if more > 0 else shown,
    )


def _problems(fixed: Fixed, state: TrainState) -> list[str]:
    """List the optimizer entries that a state lacks, or has too many of, for a program."""
    return [
        f"{kind} {tree.path_string((part, *path))!r}"
        for part, expected in _expected(fixed, state).items()
        for kind, path in _differences(expected, getattr(state, part))
    ]


def _expected(fixed: Fixed, state: TrainState) -> dict[str, Any]:
    """Return the parts of a state that depend on what is trained, on "meta" if possible."""
    trained = {path: state.params[path] for path in fixed.trainable}
    loss_scale = initial_loss_scale(fixed.recipe.precision, state.device)
    try:
        parts = _initial(fixed, {path: value.to("meta") for path, value in trained.items()})
    except RuntimeError:  # an optimizer may look at values, which "meta" tensors do not have
        parts = _initial(fixed, trained)
    return {"loss_scale": loss_scale, **parts}


def _initial(fixed: Fixed, trained: Tensors) -> dict[str, Any]:
    ema, optimizer = fixed.recipe.ema, fixed.recipe.optimizer
    return {"optimizer": optimizer.init(trained), "ema": None if ema is None else ema.init(trained)}


def _differences(expected: Any, given: Any) -> Iterator[tuple[str, tree.Path]]:
    ours, theirs = _paths(expected), _paths(given)
    unexpected = {path for path in theirs - ours if "group" not in path}  # steps may add to it
    yield from (("missing", path) for path in sorted(ours - theirs, key=repr))
    yield from (("unexpected", path) for path in sorted(unexpected, key=repr))


def _paths(part: Any) -> set[tree.Path]:
    """Where the leaves are, except the counts of skipped parameters, which come and go."""
    leaves = () if part is None else tree.items(_present_at_init(part))
    return {path for path, _ in leaves if "per_parameter" not in path}


def _present_at_init(part: Any) -> Any:
    """Return the entries that exist before the first step: of a torch optimizer, its group."""
    if not isinstance(part, Mapping):
        return part
    if part.keys() == TORCH_STATE:
        return {"group": part["group"]}
    return {key: _present_at_init(value) for key, value in part.items()}
