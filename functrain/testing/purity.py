"""Check that a step is a pure function of state and batch."""

from __future__ import annotations

import copy as python
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import nn

from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.core.recipe import StaticParts
from functrain.own_steps.program import OwnProgram
from functrain.testing.code_variables import module_of
from functrain.testing.module_attributes import (
    ModuleAttributes,
    try_other_batches,
    unchanged,
    without,
)
from functrain.testing.observed_calls import Call, refuse, repeat_twice, shared, watch_call
from functrain.training.phases import counting_epochs
from functrain.tree.nodes import copy


@runtime_checkable
class Steps(Protocol):
    """Anything with a ``train_step(state, batch)`` that returns a state and metrics."""

    def train_step(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """Make one update."""
        ...


Allowed = Callable[[str, str], bool]
StepFunction = Callable[[Any, Any], tuple[Any, Any]]


def check_pure(
    program: AnyProgram | Steps | StepFunction,
    state: Any,
    batch: Any,
    *,
    module: nn.Module | None = None,
) -> None:
    """Check that a step changes nothing, shares nothing and reads nothing but its arguments.

    The step runs once on the arguments and twice on copies, the last time with the global random
    generators in another state, and in between from the new state on every second sample, to
    detect what a call remembers. The bytes of state, batch and module (including attributes and
    ``.grad``), of the global state (generators, default dtype, threads, environment, ...), and of
    the three results must be equal. No tensor of the new state may share memory with the old one,
    the batch or the module, and no metric with either state, except frozen parameters and
    counters. A step may fill attributes of the module with values independent of earlier calls.
    ``eval_step`` is checked likewise. Changes to the global state are undone.

    Args:
        program: a program, including donated and compiled ones; anything else with a
            ``train_step``; or a function (state, batch) -> (state, metrics).
        state: the state before the step. A donated program is given copies.
        batch: the batch of the step.
        module: a module to watch as well; by default the one that the program was made from.

    Raises:
        ImpurityError: with one line per finding: the place and what happened to it.

    Example:
        >>> import functrain as ft, torch
        >>> def step(state, batch):
        ...     state["w"] += batch.mean()
        ...     return state, {"loss": batch.sum()}
        >>> check_pure(step, {"w": torch.zeros(2)}, torch.ones(3))
        Traceback (most recent call last):
        functrain.errors.ImpurityError: train_step is not pure:
          state['w'] was changed: 2 of 2 elements, first at [0]: 0.0 became 1.0 (1065353216 ulps)
          new_state['w'] shares memory with state['w']
    """
    if isinstance(program, AnyProgram):
        program = counting_epochs(program)  # of the present phase
    train_step = program.train_step if isinstance(program, Steps) else program
    donates = getattr(program, "donates", False)
    spares = [(copy(state), python.deepcopy(batch)) for _ in range(3)]

    def call(state: Any, batch: Any) -> dict[str, Any]:
        new, metrics = train_step(state, batch)
        return {"new_state": new, "metrics": metrics}

    given = spares[2][0] if donates else state
    watched = {} if donates else {"state": state}
    watched |= {"batch": batch, "module": _shell(program) if module is None else module}
    attributes = ModuleAttributes.of(watched["module"])
    first = watch_call(lambda: call(given, batch), watched, _mode(module))
    filled, later = attributes.changed(), copy(first.result["new_state"])
    attributes.restore()
    tried = try_other_batches(lambda other: call(later, other), batch, attributes)
    repeat = repeat_twice(first, lambda: call(*spares[0]), lambda: call(*spares[1]))
    alike = unchanged(attributes, filled) if tried else set()
    findings = without(first.findings, alike)
    findings += _shared(first, watched, _may_share(program, first, state)) + repeat
    refuse("train_step", findings)
    if isinstance(program, AnyProgram) and getattr(program, "evaluate", True) is not None:
        _check_evaluation(program, state, batch, watched, _mode(module))


def _check_evaluation(
    program: AnyProgram,
    state: Any,
    batch: Any,
    watched: dict[str, Any],
    unwatched: Callable[[str], bool],
) -> None:
    def call() -> dict[str, Any]:
        return {"metrics": program.eval_step(state, batch)}

    watched, attributes = {**watched, "state": state}, ModuleAttributes.of(watched["module"])
    first = watch_call(call, watched, unwatched)
    filled = attributes.changed()
    tried = try_other_batches(lambda other: program.eval_step(state, other), batch, attributes)
    repeat = repeat_twice(first, call, call)
    alike = unchanged(attributes, filled) if tried else set()
    findings = without(first.findings, alike) + shared(first.result, watched) + repeat
    refuse("eval_step", findings)


def _shell(program: object) -> nn.Module | None:
    return module_of(program) if isinstance(program, AnyProgram) else None


def _mode(module: nn.Module | None) -> Callable[[str], bool]:
    """Ignore the mode of the program's module, which each call sets; a user's must not change."""
    return lambda place: module is None and place.endswith(".training")


def _shared(first: Call, watched: dict[str, Any], allowed: Callable[[str, str], bool]) -> list[str]:
    new, metrics = ({name: first.result[name]} for name in ("new_state", "metrics"))
    return shared(new, watched, allowed) + shared(metrics, {**watched, **new})


def _may_share(program: object, call: Call, state: Any) -> Allowed:
    if isinstance(program, OwnProgram):  # a part that the step returns as it was
        return lambda one, other: one == f"new_{other}"
    if not isinstance(program, Program):
        return lambda one, other: False
    skipped = call.result["new_state"].counters.skipped, state.counters.skipped
    rejected = bool(skipped[0] != skipped[1])
    return may_share(program.fixed, rejected)


def may_share(fixed: StaticParts, rejected: bool) -> Allowed:
    """Return which leaves the old and the new state may share: those that no step writes to."""
    frozen = fixed.model.params.keys() - set(fixed.trainable)
    unwritten = {f"state.params[{path!r}]" for path in frozen}
    unwritten |= {"state.counters.skipped", "state.skipped"}

    def allowed(one: str, other: str) -> bool:
        alike = one == f"new_{other}"
        return alike and (rejected or other in unwritten or other.startswith("state.loss_scale"))

    return allowed
