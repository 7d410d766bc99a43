"""The parts of a program and of a state that the loop, checkpoints, transformations and laws need.

A program of a module (:class:`functrain.Program`) satisfies them, and so do those of a user's own
functions. Code that needs the module asks the programs in :meth:`AnyProgram.leaves`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import attrs
import torch

from functrain.core.loss import LossFunction, LossOutput, Metrics
from functrain.core.program import Program
from functrain.core.rng import Rng
from functrain.core.schedule import Mode
from functrain.core.state import Counters, TrainState
from functrain.errors import ConfigurationError, UnsupportedError


class AnyState(Protocol):
    """A state: frozen, a tree, with the place of the run in it.

    Attributes:
        rng: the root seed.
        counters: step, epoch, batch and samples.
        ema: averaged weights, or ``None``.
        scheduler: the tree of the schedules; empty without any.
        device: where the tensors are.
    """

    @property
    def rng(self) -> Rng: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def ema(self) -> Any: ...
    @property
    def scheduler(self) -> dict[str, Any]: ...
    @property
    def device(self) -> torch.device: ...


class AnyRecipe(Protocol):
    """The values that a program was built from."""

    @property
    def accumulate(self) -> int:
        """Loader batches in a step."""
        ...

    @property
    def ema(self) -> Any:
        """How weights are averaged."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the recipe as plain data, for checkpoints and trackers."""
        ...


@runtime_checkable
class AnyProgram(Protocol):
    """A program: three pure functions, and what the rooms around them ask of it.

    Attributes:
        donates: whether ``train_step`` consumes the state it is given.
        schedules: the learning-rate schedules, an empty dict without any.
        device_step: the device part, or ``None``.
        sharded: the device part of several processes, or ``None``.
    """

    @property
    def donates(self) -> bool: ...
    @property
    def schedules(self) -> Any: ...
    @property
    def device_step(self) -> Any: ...
    @property
    def sharded(self) -> Any: ...
    @property
    def recipe(self) -> AnyRecipe: ...

    def init(self, seed: int = 0) -> Any:
        """Return the state before the first step."""
        ...

    def train_step(self, state: Any, batch: Any) -> tuple[Any, Metrics]:
        """Make one update."""
        ...

    def eval_step(self, state: Any, batch: Any, weights: str = "params") -> Metrics:
        """Return the metrics of a batch."""
        ...

    def loss_output(self, state: Any, batch: Any, weights: str = "params") -> LossOutput:
        """Return the result of ``eval_step``, with the weight that averages over batches need."""
        ...

    def evaluated_by(self, function: LossFunction) -> AnyProgram:
        """Return the program with another function for ``eval_step``."""
        ...

    def require(self, state: object, batch: Any = None) -> None:
        """Refuse a state of another program."""
        ...

    def place(self, state: Any) -> Any:
        """Return a state as the steps of a sharded program take it."""
        ...

    def gathered(self, state: Any) -> Any:
        """Return a state with whole leaves."""
        ...

    def observe(self, state: Any, metric: float | None, mode: Mode | None = None) -> Any:
        """Report a metric of an evaluation to the schedules."""
        ...

    def leaves(self) -> dict[str, Program]:
        """Return the programs of modules in this one, by the prefix of their paths in a state."""
        ...

    def map_leaves(self, function: Callable[[Program], Program]) -> AnyProgram:
        """Return the program with another one for each of :meth:`leaves`."""
        ...

    def map_states(self, function: Callable[[Program, TrainState], TrainState], state: Any) -> Any:
        """Return the state with another one for the state of each of :meth:`leaves`."""
        ...


State = TypeVar("State", bound=AnyState)


def donating(program: AnyProgram, donates: bool) -> AnyProgram:
    """Return a program whose step consumes the state it is given, or none does."""
    return cast(AnyProgram, attrs.evolve(cast(Any, program), donates=donates))


def require_program(value: object) -> None:
    """Refuse a model, data or anything else where a program is expected."""
    if isinstance(value, AnyProgram):
        return
    hint = "a program is made of it, functrain.program(model, loss, optimizer)"
    if not isinstance(value, torch.nn.Module):
        hint = "the program comes first, functrain.program(model, loss, optimizer)"
    raise UnsupportedError(f"expected a Program, got a {type(value).__name__}: {hint}")


def require_plain(value: object, caller: str) -> None:
    """Refuse anything but the program of one module."""
    require_program(value)
    program: Any = value
    inner = program.leaves()
    if list(inner) == [""]:
        return
    one = next(iter(inner), None)
    hint = "its step is a function of your own, which does everything itself"
    if one is not None:
        hint = f"give it one of its programs, such as {one.rstrip('.')!r}: {caller}(programs[...])"
    raise UnsupportedError(
        f"{caller}: expected the program of one module, got a {type(value).__name__}; {hint}"
    )


def require_one_step(program: Program, caller: str) -> None:
    """Refuse a program of :func:`functrain.phases`, which makes another step in each phase."""
    if program.in_phases:
        raise ConfigurationError(
            f"{caller}: expected a program with one step, got one of functrain.phases, which "
            f"{caller} does not support. Leave it out, or train each phase as a run of its own by "
            "functrain.program(..., trainable=...) and program.init(params={**state.params, "
            "**state.buffers})"
        )
