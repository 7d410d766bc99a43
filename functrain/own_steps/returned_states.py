"""Refuse states that a joint step cannot have made of those it was given.

A state that a program's own step returned fits the program. Any other state, and the trees of
users, are compared with what was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.core.state import Counters, TrainState, is_made_for
from functrain.errors import ParameterMismatchError, StepResultError
from functrain.errors.nearest import nearest
from functrain.own_steps import results
from functrain.own_steps.states import CustomState, JointState


@attrs.frozen(eq=False)
class Given:
    """The state of one program, as a joint step was given it.

    Attributes:
        state: a donated step may have consumed it.
        trees: of users, by their places in the state.
    """

    name: str
    program: AnyProgram
    state: Any
    counters: Counters
    seed: int
    trees: dict[str, Any]

    @classmethod
    def of(cls, name: str, program: AnyProgram, state: Any) -> Given:
        """Note what a state is."""
        return cls(name, program, state, state.counters, state.rng.seed, users_trees(state))

    def check(self, new: Any) -> None:
        """Refuse a state that the program does not make of the one given."""
        if new is self.state:
            return
        self._check_place(new)
        for place, after in users_trees(new).items():
            where = f"state.{self.name}.{place}"
            results.check_like(self.trees.get(place), after, where, "step")
        try:
            self.program.map_states(_require, new)
        except ParameterMismatchError as error:
            raise StepResultError(
                f"step returned a state of {self.name!r} that its program cannot continue: return "
                "the state that its train_step returned. These entries differ",
                error.problems,
            ) from error

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


def users_trees(state: Any) -> dict[str, Any]:
    """Return the trees of users in a state by their places; donated steps do not overwrite them."""
    if isinstance(state, CustomState):
        return {"tree": state.tree}
    inner = state.states if isinstance(state, JointState) else {}
    found = {name: users_trees(one) for name, one in inner.items()}
    return {f"{name}.{place}": tree for name, own in found.items() for place, tree in own.items()}


def _require(program: Program, state: TrainState) -> TrainState:
    if not is_made_for(program.fixed.model, state):
        from functrain.diagnosis.fitting_state import check_params

        check_params(program.fixed, state)
        program.require(state)
    return state
