"""``functrain.joint``: several programs, and one pure function over their states, as a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch

from functrain.core import learning_rate
from functrain.core.batch import Batch
from functrain.core.first_step import require_state
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram, donating, require_program
from functrain.core.rng import Rng, checked_seed
from functrain.core.state import Counters, TrainState, is_consumed
from functrain.errors import ConfigurationError, DonatedStateError
from functrain.errors.calls import explained
from functrain.errors.nearest import nearest, unknown_attribute
from functrain.own_steps import results
from functrain.own_steps.program import OwnProgram, OwnRecipe
from functrain.own_steps.returned_states import Given, check_names, users_trees
from functrain.own_steps.states import (
    JointState,
    check_name,
    joint_state,
    names_of,
    seed_of,
)
from functrain.own_steps.versions import Versions


@attrs.frozen(eq=False, repr=False)
class Joint(OwnProgram):
    """A program made by :func:`functrain.joint`.

    Attributes:
        programs: by name.
        counted: names of programs whose schedules take their length from the run, so that every
            joint step must make one update of each.
    """

    programs: Mapping[str, AnyProgram] = attrs.field(kw_only=True)
    counted: frozenset[str] = attrs.field(kw_only=True)

    @property
    def recipe(self) -> OwnRecipe:
        """The functions that the program was made of, and the recipes of its programs."""
        functions = {"step": self.step, "evaluate": self.evaluate}
        each = {name: program.recipe for name, program in self.programs.items()}
        return OwnRecipe(functions=functions, programs=each)

    def __getattr__(self, name: str) -> Any:
        elsewhere = {}
        if name != "programs" and not name.startswith("_"):
            elsewhere = {one: f"program.programs[{one!r}]" for one in self.programs}
            first = next(iter(self.programs))
            if hasattr(Program, name):
                elsewhere[name] = f"that of one of its programs, program.programs[{first!r}].{name}"
        raise unknown_attribute("Joint", name, dir(type(self)), elsewhere)

    @property
    def schedules(self) -> dict[str, Any]:
        """The schedules of each program."""
        return {name: program.schedules for name, program in self.programs.items()}

    def init(
        self,
        seed: int = 0,
        params: Mapping[str, Mapping[str, Any]] | None = None,
        device: torch.device | str | None = None,
        *,
        only: Mapping[str, Any] | None = None,
        rename: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the state before the first step.

        Args:
            seed: root of all randomness. Each program has a seed that follows from it and from the
                program's name, so that two equal models draw different weights.
            params: pretrained values by name of the program; see :meth:`functrain.Program.init`.
            device: where the states go.
            only: by name of the program, which of its names ``params`` must have.
            rename: by name of the program, how names in its ``params`` differ.

        Raises:
            ConfigurationError: a name is that of no program.
        """
        if params is not None and not isinstance(params, Mapping):
            raise ConfigurationError(
                f"params: expected values by name of the program, got a {type(params).__name__}: "
                "functrain.checkpoint.weights(path, program=name) reads those of one program"
            )
        seed = checked_seed(seed)
        given = {"params": params or {}, "only": only or {}, "rename": rename or {}}
        for what, by_name in given.items():
            self._require_names(what, by_name)
        states = {}
        for name, one in self.programs.items():
            program: Any = one
            options = {what: own[name] for what, own in given.items() if name in own}
            states[name] = program.init(seed_of(name, seed), device=device, **options)
        where = next(iter(states.values())).device
        return joint_state(states, Rng(seed), Counters.initial(where))

    def _require_names(self, what: str, by_name: Mapping[str, Any]) -> None:
        for name in by_name:
            if name not in self.programs:
                raise ConfigurationError(
                    f"{what}: expected names of programs, {list(self.programs)}, got {name!r}"
                    f"{nearest(name, self.programs)}"
                )

    def require(self, state: object, batch: Batch = None) -> None:
        """Refuse a state of another program."""
        require_state(state, batch, JointState)
        names = names_of(type(state))
        if names != list(self.programs):
            raise ConfigurationError(
                f"expected a state of the programs {list(self.programs)}, got one of {names}. "
                "Begin with state = program.init(seed=0)"
            )

    def advanced(self, state: Any, batch: Batch, rng: torch.Generator) -> tuple[Any, Any]:
        """Call the user's step, and check what it did and returned."""
        states = state.states
        given = {n: Given.of(n, program, states[n]) for n, program in self.programs.items()}
        versions = Versions(users_trees(state) if self.donates else state, "state")
        try:
            returned = self.step(self._lent(), dict(states), batch, rng)
        except DonatedStateError as error:
            names = [name for name, one in states.items() if is_consumed(one)]
            error.add_note(
                f"The joint step read the state of {', '.join(map(repr, names))} after its donated "
                "train_step had consumed it. Compute what needs the state before that step, or "
                "leave out functrain.donated"
            )
            raise
        new, metrics = results.pair(returned, "step", "states")
        versions.refuse_writes("step")
        check_names(given, new)
        for name, one in given.items():
            one.check(new[name])
        for name in self.counted:
            given[name].check_counted(new[name])
        made = joint_state({name: new[name] for name in self.programs}, state.rng, state.counters)
        if self.donates:
            _consume(state)
        return made, metrics

    def assessed(self, state: Any, batch: Batch, rng: torch.Generator) -> Any:
        """Call the user's evaluation, and check that it wrote to nothing."""
        assert self.evaluate is not None
        versions = Versions(state, "state")
        found = self.evaluate(dict(self.programs), state.states, batch, rng)
        versions.refuse_writes("evaluate")
        return found

    def leaves(self) -> dict[str, Program]:
        """Return the programs of modules by the prefix of their paths in a state."""
        return {
            f"{name}.{prefix}": leaf
            for name, program in self.programs.items()
            for prefix, leaf in program.leaves().items()
        }

    def map_leaves(self, function: Callable[[Program], Program]) -> Joint:
        """Return the joint program of other programs."""
        changed = {name: one.map_leaves(function) for name, one in self.programs.items()}
        return attrs.evolve(self, programs=changed)

    def map_states(self, function: Callable[[Program, TrainState], TrainState], state: Any) -> Any:
        """Return the state with another one for the program of each module."""
        own = state.states
        changed = {n: one.map_states(function, own[n]) for n, one in self.programs.items()}
        return attrs.evolve(state, **changed)

    def _lent(self) -> dict[str, AnyProgram]:
        """Return the programs as the user's step calls them."""
        return {name: donating(one, self.donates) for name, one in self.programs.items()}


def _consume(state: Any) -> None:
    """Make any later use of a state an error, as that of the states in it is."""
    for name in names_of(type(state), all_fields=True):
        object.__delattr__(state, name)


@explained
def joint(
    programs: Mapping[str, AnyProgram],
    step: Callable[..., tuple[Mapping[str, Any], Mapping[str, Any]]],
    evaluate: Callable[..., Any] | None = None,
) -> Joint:
    """Make one program of several, and of a pure function over their states.

    ``fit``, ``iterate``, ``evaluate``, checkpoints, listeners and checks take it like any other.
    Its state has the state of each program as an attribute, and counters of joint steps.

    Args:
        programs: by name, which is an identifier; made by ``functrain.program``, or by
            ``functrain.custom`` for tensors such as a queue or a replay memory.
        step: ``step(programs, states, batch, rng)`` returns (states, metrics), both by name. It
            calls ``programs[name].train_step(states[name], ...)``, lends the module of another
            program, ``programs[name].module(states[name])``, and returns all states. ``rng`` is a
            ``torch.Generator``, seeded for this step, as torch's global generators are.
        evaluate: ``evaluate(programs, states, batch, rng)`` returns metrics by name, a scalar
            loss, or a :class:`functrain.Loss` with the weight of the batch.

    Returns:
        The joint program.

    Raises:
        ConfigurationError: a name is no identifier, a function takes other arguments, or a program
            is for several processes.
        UnsupportedError: one of them is no program.

    Example:
        >>> import functrain as ft, torch
        >>> def distance(model, batch):
        ...     x, other = batch
        ...     return (model(x) - other(x)).square().mean()
        >>> def step(programs, states, batch, rng):
        ...     with programs["teacher"].module(states["teacher"]) as teacher:
        ...         student, metrics = programs["student"].train_step(
        ...             states["student"], (batch, teacher)
        ...         )
        ...     return {**states, "student": student}, metrics
        >>> make = lambda: ft.program(lambda: torch.nn.Linear(2, 1), distance, ft.optim.SGD(lr=0.1))
        >>> program = ft.joint({"student": make(), "teacher": make()}, step=step)
        >>> state, metrics = program.train_step(program.init(seed=0), torch.ones(4, 2))
        >>> state.student.counters.step, state.teacher.counters.step, state.counters.step
        (1, 0, 1)
    """
    if not isinstance(programs, Mapping) or not programs:
        got = "{}" if isinstance(programs, Mapping) else f"a {type(programs).__name__}"
        raise ConfigurationError(
            f"joint: expected programs by name, {{'generator': program}}, got {got}"
        )
    for name, program in programs.items():
        check_name(name)
        require_program(program)
        _refuse_ranks(name, program)
    results.check_function(step, "step", ("programs", "states", "batch", "rng"))
    if evaluate is not None:
        results.check_function(evaluate, "evaluate", ("programs", "states", "batch", "rng"))
    own = {name: donating(program, False) for name, program in programs.items()}
    counted = frozenset(name for name, program in own.items() if _has_open_length(program))
    return Joint(step, evaluate, programs=own, counted=counted)


def _refuse_ranks(name: str, program: AnyProgram) -> None:
    if program.sharded is not None:
        raise ConfigurationError(
            f"joint: expected programs for one process, got a sharded one, {name!r}"
        )


def _has_open_length(program: AnyProgram) -> bool:
    """Return whether a schedule takes its length from the run; a joint program asks itself."""
    if not isinstance(program, Program):
        return False
    begun = learning_rate.init(program.schedules)
    return learning_rate.with_total_steps(program.schedules, begun, 7) != begun
