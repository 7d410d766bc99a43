"""Refuse states that a joint step cannot have made of those it was given.

A donated step consumes the states it is given, so what they were is noted before the step. Tensors
are noted by their form only: a donated step writes to those that nothing else holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.core.state import Counters, TrainState, fields_of
from functrain.errors import ParameterMismatchError, StepResultError
from functrain.errors.nearest import nearest
from functrain.own_steps import results
from functrain.own_steps.states import CustomState, JointState


@attrs.frozen(eq=False)
class Given:
    """The state of one program, as a joint step was given it.

    Attributes:
        state: a donated step may have consumed it.
        outline: the forms of the tensors whose structure a step keeps.
        paths: of all leaves.
    """

    name: str
    program: AnyProgram
    state: Any
    counters: Counters
    seed: int
    outline: dict[str, Any]
    paths: set[tree.Path]

    @classmethod
    def of(cls, name: str, program: AnyProgram, state: Any) -> Given:
        """Note what a state is."""
        counters, seed = state.counters, state.rng.seed
        return cls(name, program, state, counters, seed, _outline(state), _paths(state))

    def check(self, new: Any) -> None:
        """Refuse a state that the program does not make of the one given."""
        if new is self.state:
            return
        results.check_like(self.outline, _outline(new), f"state.{self.name}", "step")
        self._check_place(new)
        if _paths(new) != self.paths:  # a first update may add some
            self._check_whole(new)

    def _check_place(self, new: Any) -> None:
        before, after = self.counters, new.counters
        # Each update takes at least one sample.
        if not 0 <= after.step - before.step <= after.samples - before.samples:
            raise StepResultError(
                f"step returned a state of {self.name!r} at step {after.step}, after "
                f"{after.samples} samples, and was given one at step {before.step}, after "
                f"{before.samples}: return the state that its train_step returned"
            )
        if new.rng.seed != self.seed:
            raise StepResultError(
                f"step returned a state of {self.name!r} with the seed {new.rng.seed}, and was "
                f"given one with the seed {self.seed}: it is of another program or run"
            )

    def _check_whole(self, new: Any) -> None:
        def checked(program: Program, own: TrainState) -> TrainState:
            program.require(own)
            return own

        try:
            self.program.map_states(checked, new)
        except ParameterMismatchError as error:
            raise StepResultError(
                f"step returned a state of {self.name!r} that its program cannot continue: return "
                "the state that its train_step returned. These entries differ",
                error.problems,
            ) from error

    def check_counted(self, new: Any) -> None:
        """Refuse any number of updates but one, for a program whose schedule counts joint steps."""
        updates = new.counters.step - self.counters.step
        if updates != 1:
            raise StepResultError(
                f"a joint step made {updates} updates of {self.name!r}, whose schedule takes its "
                "length from the run, in joint steps. Make one update in each, or give the "
                "schedule a length of its own, in updates of this program, such as "
                "Cosine(lr=..., steps=...)"
            )


def check_names(given: Mapping[str, Given], new: Any) -> None:
    """Refuse anything but a state of each program, by name."""
    if not isinstance(new, Mapping):
        raise StepResultError(
            "step must return (states, metrics), with the states as a dict by name; got a "
            f"{type(new).__name__}"
        )
    problems = [f"no state of {name!r}" for name in given if name not in new]
    problems += [f"{name!r}{nearest(str(name), given)}" for name in new if name not in given]
    for name, one in given.items():
        got, expected = type(new.get(name)), type(one.state)
        if name in new and got is not expected:
            problems.append(f"{name!r} is a {got.__name__}, expected a {expected.__name__}")
    if problems:
        raise StepResultError(
            f"step must return a state of each program, {[*given]}; got", problems
        )


def _outline(state: Any) -> dict[str, Any]:
    if isinstance(state, JointState):
        return {name: _outline(one) for name, one in state.states.items()}
    parts = ("tree",) if isinstance(state, CustomState) else ("params", "buffers", "ema")
    fields = _peeked(state)
    return {part: tree.map(_form, fields[part]) for part in parts}


def _form(leaf: Any) -> Any:
    return results.TensorForm(leaf) if isinstance(leaf, Tensor) else leaf


def _paths(state: Any) -> set[tree.Path]:
    return {path for path, _ in tree.items(_peeked(state))}


def _peeked(state: Any) -> Any:
    """Return the fields of a state, without keeping any."""
    if isinstance(state, TrainState):
        return fields_of(state)
    if not isinstance(state, JointState | CustomState):
        return state
    cls: Any = type(state)
    return {field.name: _peeked(getattr(state, field.name)) for field in attrs.fields(cls)}
