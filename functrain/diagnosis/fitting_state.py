"""Whether a state is one of a program: what is missing, unexpected or of another shape in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.core import learning_rate
from functrain.core.initial_state import mismatches
from functrain.core.optimizer import TORCH_STATE
from functrain.core.precision import initial_loss_scale
from functrain.core.recipe import StaticParts
from functrain.core.state import Tensors, TrainState, is_consumed
from functrain.errors import ParameterMismatchError, ScheduleStateError, UnsupportedError

_SHOWN = 12
_REMEDY = (
    "Continue from a state that the program made, program.init(). To start with these weights, "
    "program.init(params={**state.params, **state.buffers}); to continue at its step as well, "
    "attrs.evolve(..., counters=state.counters, rng=state.rng)"
)


def check_state(fixed: StaticParts, state: TrainState) -> None:
    """Refuse a state whose tensors are not those of the program."""
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


def check_params(fixed: StaticParts, state: TrainState) -> None:
    """Refuse a state whose parameters are not those of the program's model."""
    if problems := _misfits(fixed, state):
        raise _mismatch(problems)


def explain_mismatch(error: Exception, fixed: StaticParts, state: TrainState) -> None:
    """Raise an error of our own in place of another where the state is of another program.

    Raises:
        ParameterMismatchError: the state has other tensors than those that the program makes.
        UnsupportedError: they have no values, or torch does not train them.
    """
    if is_consumed(state):
        return
    problems = _misfits(fixed, state) or _problems(fixed, state)
    if problems:
        raise _mismatch(problems) from error
    if isinstance(error, RuntimeError):
        _explain_untrainable(error, state)


def explain_schedule(error: KeyError, fixed: StaticParts, state: TrainState) -> None:
    """Raise an error of our own in place of one of a schedule that misses a part of its state.

    Raises:
        ParameterMismatchError: the state has other tensors than those that the program makes.
        ScheduleStateError: it was made with a schedule of another kind.
    """
    explain_mismatch(error, fixed, state)
    if is_consumed(state):
        return
    schedules = learning_rate.schedules(fixed.recipe.optimizer)
    for name, schedule, own, _ in learning_rate.each_schedule(schedules, state.scheduler):
        if schedule.init().keys() - own.keys():
            raise ScheduleStateError(
                f"{name}: the state was made with another schedule than this "
                f"{type(schedule).__name__}: it has {dict(own)!r}. To begin this one "
                "at the step of the state: attrs.evolve(state, "
                "scheduler=program.init().scheduler)"
            ) from error


def _misfits(fixed: StaticParts, state: TrainState) -> list[str]:
    """List the parameters that are none of the program's model."""
    given: Any = state.params
    if not isinstance(given, Mapping):
        return [f"params are a {type(given).__name__}, expected a dict of tensors by path"]
    known, given = fixed.model.params, dict(given)
    others = {path: value for path, value in given.items() if not isinstance(value, Tensor)}
    if others:
        return [f"{p!r} is a {type(v).__name__}, expected a tensor" for p, v in others.items()]
    return mismatches(given, known, known) or [
        f"{path!r} has the dtype {given[path].dtype}, expected {tensor.dtype}"
        for path, tensor in known.items()
        if given[path].dtype != tensor.dtype
    ]


def _explain_untrainable(error: RuntimeError, state: TrainState) -> None:
    """Explain an error of parameters without values, or which torch does not differentiate."""
    if any(param.is_meta for param in state.params.values()):
        raise UnsupportedError(
            'the parameters of the state are on the device "meta", which has no values: make the '
            'state on another one, program.init(device="cpu", params=...)'
        ) from error
    if any(param.is_inference() for param in state.params.values()):
        raise UnsupportedError(
            "the state was made in torch.inference_mode(), whose tensors torch does not train: "
            "make it outside, or copy it there, functrain.copy(state)"
        ) from error


def _mismatch(problems: list[str]) -> ParameterMismatchError:
    shown, more = problems[:_SHOWN], len(problems) - _SHOWN
    return ParameterMismatchError(
        "the state is of a program that trains other parameters, or has another model, optimizer, "
        f"dtype, ema= or precision=. {_REMEDY}. These differ",
        [*shown, f"and {more} more"] if more > 0 else shown,
    )


def _problems(fixed: StaticParts, state: TrainState) -> list[str]:
    """List the optimizer entries that a state lacks, has too many of, or in another shape."""
    return [
        problem.format(repr(tree.path_string((part, *path))))
        for part, expected in _expected(fixed, state).items()
        for problem, path in _differences(expected, getattr(state, part), dtypes=part == "ema")
    ]


def _expected(fixed: StaticParts, state: TrainState) -> dict[str, Any]:
    """Return the parts of a state that depend on what is trained, on "meta" if possible."""
    trained = {path: state.params[path] for path in fixed.trainable}
    loss_scale = initial_loss_scale(fixed.recipe.precision, state.device)
    try:
        parts = _initial(fixed, {path: value.to("meta") for path, value in trained.items()})
    except RuntimeError:  # an optimizer may look at values, which "meta" tensors do not have
        parts = _initial(fixed, trained)
    return {"loss_scale": loss_scale, **parts}


def _initial(fixed: StaticParts, trained: Tensors) -> dict[str, Any]:
    ema, optimizer = fixed.recipe.ema, fixed.recipe.optimizer
    return {"optimizer": optimizer.init(trained), "ema": None if ema is None else ema.init(trained)}


def _differences(expected: Any, given: Any, dtypes: bool) -> Iterator[tuple[str, tree.Path]]:
    ours, theirs = _leaves(expected), _leaves(given)
    unexpected = {path for path in theirs.keys() - ours.keys() if "group" not in path}
    yield from (("missing {}", path) for path in sorted(ours.keys() - theirs.keys(), key=repr))
    yield from (("unexpected {}", path) for path in sorted(unexpected, key=repr))  # not of a step
    for path in (path for path in ours if path in theirs):
        if not isinstance(ours[path], Tensor):
            continue
        shape, found = list(ours[path].shape), theirs[path]
        if not isinstance(found, Tensor):
            yield f"{{}} is a {type(found).__name__}, expected a tensor", path
        elif list(found.shape) != shape:
            yield f"{{}} has shape {list(found.shape)}, expected {shape}", path
        elif dtypes and found.dtype is not ours[path].dtype:
            yield f"{{}} has the dtype {found.dtype}, expected {ours[path].dtype}", path


def _leaves(part: Any) -> dict[tree.Path, Any]:
    """Return the leaves by path, except the counts of skipped parameters, which come and go."""
    leaves = () if part is None else tree.items(_present_at_init(part))
    return {path: leaf for path, leaf in leaves if "per_parameter" not in path}


def _present_at_init(part: Any) -> Any:
    """Return the entries that exist before the first step: of a torch optimizer, its group."""
    if not isinstance(part, Mapping):
        return part
    if part.keys() == TORCH_STATE:
        return {"group": part["group"]}
    return {key: _present_at_init(value) for key, value in part.items()}
