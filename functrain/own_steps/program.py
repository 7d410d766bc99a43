"""A program whose step is a function of the user: counted, seeded and checked as any other.

Read :meth:`OwnProgram.train_step` first. ``custom.py`` and ``joint.py`` say what a state consists
of, and how the user's function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import attrs
import torch

from functrain.core.batch import Batch
from functrain.core.batch_lending import copied
from functrain.core.batch_splitting import split_step
from functrain.core.evaluation import evaluation_stream
from functrain.core.global_generators import Draws
from functrain.core.loss import LossOutput, Metrics, computed
from functrain.core.program import Program
from functrain.core.recipe import Nonfinite
from functrain.core.rng import derive, refuse_system_seed, scoped
from functrain.core.schedule import Mode
from functrain.core.state import TrainState, without_samples
from functrain.errors import ConfigurationError
from functrain.errors.nearest import named, unknown_attribute
from functrain.own_steps import results
from functrain.tree import NamedDict

Self = TypeVar("Self", bound="OwnProgram")


@attrs.frozen(eq=False, kw_only=True)
class OwnRecipe:
    """The functions that a program was made of, and the recipes of programs within it.

    Attributes:
        functions: by the name of the argument; ``None`` where there is none.
        programs: recipes by name.
        nonfinite: what a loss that is not finite does, where the program itself decides that.
    """

    functions: Mapping[str, Callable[..., Any] | None]
    programs: Mapping[str, Any] = attrs.field(factory=dict)
    nonfinite: Nonfinite | None = None
    accumulate: int = attrs.field(default=1, init=False)
    ema: None = attrs.field(default=None, init=False)

    def rows(self) -> list[tuple[str, str]]:
        """Return names and values for people."""
        rows = [(name, named(value)) for name, value in self.functions.items()]
        return rows if self.nonfinite is None else [*rows, ("nonfinite", self.nonfinite)]

    def describe(self) -> dict[str, Any]:
        """Return the recipe as plain data: functions by their names."""
        own = {name: None if f is None else _name(f) for name, f in self.functions.items()}
        each = {name: recipe.describe() for name, recipe in self.programs.items()}
        # Earlier checkpoints say nothing of it.
        policy = {} if self.nonfinite in (None, "raise") else {"nonfinite": self.nonfinite}
        return {**own, **policy, **({"programs": each} if each else {})}


def _name(function: Any) -> str:
    inner = function if hasattr(function, "__qualname__") else type(function)
    return f"{inner.__module__}.{inner.__qualname__}"


@attrs.frozen(eq=False, repr=False)
class OwnProgram:
    """``init``, ``train_step`` and ``eval_step`` of functions of the user.

    Attributes:
        step: the user's step.
        evaluate: the user's evaluation, or ``None``.
        donates: whether programs within it consume their states.
        draws: which generators of Python and NumPy the functions draw from.
    """

    step: Callable[..., Any]
    evaluate: Callable[..., Any] | None
    donates: bool = attrs.field(default=False, kw_only=True)
    draws: Draws = attrs.field(factory=Draws, kw_only=True)
    device_step: ClassVar[None] = None
    sharded: ClassVar[None] = None

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.train_step, self.eval_step))

    def __getattr__(self, name: str) -> Any:
        raise unknown_attribute(type(self).__name__, name, dir(type(self)), {})

    def __repr__(self) -> str:
        rows = [f"  {name}: {value}" for name, value in self.recipe.rows()]
        return "\n".join([type(self).__name__, *rows])

    def init(self, seed: int = 0) -> Any:
        """Return the state before the first step."""
        raise NotImplementedError

    def require(self, state: object, batch: Batch = None) -> None:
        """Refuse a state of another program."""
        raise NotImplementedError

    def advanced(self, state: Any, batch: Batch, rng: torch.Generator) -> tuple[Any, Any]:
        """Return the state after the user's step, with the counters of before, and its metrics."""
        raise NotImplementedError

    def accepted(self, before: Any, after: Any, metrics: Metrics) -> Any:
        """Return the state with which a run goes on, with the counters of before its step."""
        return after

    def assessed(self, state: Any, batch: Batch, rng: torch.Generator) -> Any:
        """Return what the user's evaluation returns."""
        raise NotImplementedError

    @property
    def recipe(self) -> OwnRecipe:
        """The functions that the program was made of."""
        return OwnRecipe(functions={"step": self.step, "evaluate": self.evaluate})

    @property
    def schedules(self) -> dict[str, Any]:
        """The schedules of programs within it, by name."""
        return {}

    def train_step(self, state: Any, batch: Batch) -> tuple[Any, Metrics]:
        """Make one step, as a pure function.

        Args:
            state: where training stands; not changed.
            batch: what the user's step takes, on any device.

        Returns:
            (next state, metrics); metrics are 0-dim tensors.

        Raises:
            UnsupportedError: ``state`` is something else.
            StepResultError: the step returned another structure, dtype or shape, or a metric that
                is no scalar; names the paths.
            NonFiniteError: the loss of a custom step is not finite and ``nonfinite="raise"``.
            ImpurityError: the step wrote to the state.
        """
        self.require(state, batch)
        given = split_step(batch, 1)
        counters, device = state.counters, state.device
        if not given.samples:
            return without_samples(state, given), NamedDict({})
        number = counters.step
        stream = state.rng.stream("step", number)

        def stepping() -> tuple[Any, Any]:
            rng = _generator(state.rng.stream("rng", "step", number), device)
            return self.advanced(state, copied(batch, device), rng)

        with scoped(stream, device, draws=self.draws):
            new, found = stepping()
            if not self.donates:
                refuse_system_seed(stream, stepping)
        metrics = results.metrics(found, device, _called(self.step))
        new = self.accepted(state, new, metrics)
        return attrs.evolve(new, counters=counters.after(given, new.counters.skipped)), metrics

    def eval_step(self, state: Any, batch: Batch, weights: str = "params") -> Metrics:
        """Return the metrics of a batch.

        Torch follows what is computed, so that an evaluation may differentiate.

        Args:
            state: where training stands; not changed.
            batch: what the user's evaluation takes.
            weights: ``"params"``; such a program has no averaged weights of its own.

        Raises:
            ConfigurationError: the program has no evaluation, or ``weights`` is something else.
            StepResultError: the evaluation returned something else than scalars.
        """
        found = self.loss_output(state, batch, weights)
        return NamedDict(computed(found.named(), state.device))

    def loss_output(self, state: Any, batch: Batch, weights: str = "params") -> LossOutput:
        """Return the result of ``eval_step``, with the weight that averages over batches need."""
        self.require(state, batch)
        evaluate = self.evaluate
        if evaluate is None:
            raise ConfigurationError(
                f"{type(self).__name__.lower()}: the program has no evaluation, so it takes no "
                "eval_data, evaluate or eval_step. Give it one, evaluate=..., or "
                "functrain.Evaluation(data, function=...)"
            )
        if weights != "params":
            raise ConfigurationError(
                f"weights={weights!r}: expected 'params', because this program has no averaged "
                "weights of its own. Its evaluation chooses the weights: "
                'programs[name].module(states[name], weights="ema")'
            )
        device = state.device
        rng = _generator(state.rng.stream("rng", "evaluate", state.counters.step), device)
        scope = scoped(evaluation_stream(state), device, draws=self.draws)
        with torch.enable_grad(), scope:
            returned = self.assessed(state, copied(batch, device), rng)
        return results.loss_output(returned, device, _called(evaluate))

    def evaluated_by(self: Self, function: Callable[..., Any]) -> Self:
        """Return the program with another evaluation."""
        return attrs.evolve(self, evaluate=function)

    def place(self, state: Any) -> Any:
        """Return the state; one process has all of it."""
        return state

    def gathered(self, state: Any) -> Any:
        """Return the state; one process has all of it."""
        return state

    def observe(self, state: Any, metric: float | None, mode: Mode | None = None) -> Any:
        """Report a metric of an evaluation to the schedules of programs within it."""
        return self.map_states(lambda program, own: program.observe(own, metric, mode), state)

    def leaves(self) -> dict[str, Program]:
        """Return the programs of modules in this one, by the prefix of their paths in a state."""
        return {}

    def map_leaves(self: Self, function: Callable[[Program], Program]) -> Self:
        """Return the program with another one for each of :meth:`leaves`."""
        return self

    def map_states(self, function: Callable[[Program, TrainState], TrainState], state: Any) -> Any:
        """Return the state with another one for the state of each of :meth:`leaves`."""
        return state


def initial(seed: int, function: Callable[[int], Any]) -> Any:
    """Return what a function makes of a seed, in the random stream of initial values."""
    with scoped(derive(seed, "init"), None):
        return function(seed)


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def _called(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
