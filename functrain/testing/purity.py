"""Whether a step is a pure function of state and batch."""

from __future__ import annotations

import copy as python
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import nn

from functrain.core.program import Program
from functrain.core.recipe import Fixed
from functrain.testing.caching import Attributes, attempted, unchanged, without
from functrain.testing.observing import (
    Call,
    observed,
    refuse,
    repeated,
    repeated_elsewhere,
    shared,
)
from functrain.tree.copying import copy


@runtime_checkable
class Steps(Protocol):
    """Anything with a ``train_step(state, batch)`` that returns a state and metrics."""

    def train_step(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """One update."""
        ...


Allowed = Callable[[str, str], bool]
StepFunction = Callable[[Any, Any], tuple[Any, Any]]


def check_pure(
    program: Program | Steps | StepFunction,
    state: Any,
    batch: Any,
    *,
    module: nn.Module | None = None,
) -> None:
    """Check that a step changes nothing, shares nothing and reads nothing but its arguments.

    The step is made once on what is given and twice on copies, the last time with the global
    random generators in another state, and between them from the new state on a thinned batch,
    for what a call remembers. Compared are bytes: of state, batch and module (attributes
    and ``.grad`` too), of the global state (generators, default dtype, threads, environment, ...),
    and of the three results. No tensor of the new state may lie on memory of the old one, of the
    batch or of the module, and no metric on memory of either state; frozen parameters and counters
    may, and a step may fill attributes of the module, if alike whatever was called before.
    ``eval_step`` is checked likewise. Whatever was changed globally is put back.

    Args:
        program: a program, donated and compiled ones too; anything else with a ``train_step``; or
            a function (state, batch) -> (state, metrics) of your own.
        state: where training stands. A donated program is given copies.
        batch: what the step is given.
        module: watched besides; by default the program's private shell of the module.

    Raises:
        ImpurityError: with one line for each thing found: its place and what happened to it.

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
    train_step = program.train_step if isinstance(program, Steps) else program
    donates = getattr(program, "donates", False)
    spares = [(copy(state), python.deepcopy(batch)) for _ in range(3)]

    def call(state: Any, batch: Any) -> dict[str, Any]:
        new, metrics = train_step(state, batch)
        return {"new_state": new, "metrics": metrics}

    given = spares[2][0] if donates else state
    watched = {} if donates else {"state": state}
    watched |= {"batch": batch, "module": _shell(program) if module is None else module}
    attributes = Attributes.of(watched["module"])
    first = observed(lambda: call(given, batch), watched, _mode(module))
    filled, later = attributes.changed(), copy(first.result["new_state"])
    attributes.put_back()
    tried = attempted(lambda other: call(later, other), batch, attributes)
    repeat = repeated(first, lambda: call(*spares[0]))
    alike = unchanged(attributes, filled) if tried else set()
    findings = without(first.findings, alike)
    findings += _shared(first, watched, _may_share(program, first, state)) + repeat
    findings += [] if findings else repeated_elsewhere(first, lambda: call(*spares[1]))
    refuse("train_step", findings)
    if isinstance(program, Program):
        _check_evaluation(program, state, batch, watched, _mode(module))


def _check_evaluation(
    program: Program,
    state: Any,
    batch: Any,
    watched: dict[str, Any],
    unwatched: Callable[[str], bool],
) -> None:
    def call() -> dict[str, Any]:
        return {"metrics": program.eval_step(state, batch)}

    watched, attributes = {**watched, "state": state}, Attributes.of(watched["module"])
    first = observed(call, watched, unwatched)
    filled = attributes.changed()
    tried = attempted(lambda other: program.eval_step(state, other), batch, attributes)
    repeat = repeated(first, call)
    alike = unchanged(attributes, filled) if tried else set()
    findings = without(first.findings, alike) + shared(first.result, watched) + repeat
    findings += [] if findings else repeated_elsewhere(first, call)
    refuse("eval_step", findings)


def _shell(program: object) -> nn.Module | None:
    return program.fixed.model.module if isinstance(program, Program) else None


def _mode(module: nn.Module | None) -> Callable[[str], bool]:
    """The shell's mode is set anew for each call; a module of the user's must keep its own."""
    return lambda place: module is None and place.endswith(".training")


def _shared(first: Call, watched: dict[str, Any], allowed: Callable[[str, str], bool]) -> list[str]:
    new, metrics = ({name: first.result[name]} for name in ("new_state", "metrics"))
    return shared(new, watched, allowed) + shared(metrics, {**watched, **new})


def _may_share(program: object, call: Call, state: Any) -> Allowed:
    if not isinstance(program, Program):
        return lambda one, other: False
    skipped = call.result["new_state"].counters.skipped, state.counters.skipped
    rejected = bool(skipped[0] != skipped[1])
    return may_share(program.fixed, rejected)


def may_share(fixed: Fixed, rejected: bool) -> Allowed:
    """Which leaves the old and the new state may have in common: those that no step writes to.

    Args:
        fixed: of the program; says which parameters are frozen.
        rejected: whether the update was left out, for what is not finite.
    """
    frozen = fixed.model.params.keys() - set(fixed.trainable)
    unwritten = {f"state.params[{path!r}]" for path in frozen}
    unwritten |= {"state.counters.skipped", "state.skipped"}

    def allowed(one: str, other: str) -> bool:
        alike = one == f"new_{other}"
        return alike and (rejected or other in unwritten or other.startswith("state.loss_scale"))

    return allowed
