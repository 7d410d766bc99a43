"""Call functions of the state during training, without changing the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from attrs.converters import optional

from functrain.core.global_generators import sample_scope
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.errors.calls import explained
from functrain.listeners.intervals import Interval
from functrain.training import events


@explained
@attrs.define(eq=False)
class Every:
    """A listener that calls a function at an interval.

    During the call all random generators (torch's, ``random``, NumPy's) are seeded from the
    state's seed, and afterwards they are restored bit for bit. So the call does not change
    training, and it draws the same numbers in a resumed run.

    Args:
        every: the interval, a duration.
        function: takes the state after the step. Its result is ignored, unless it is an
            ``ft.Stop``, which ends the run.
        every_rank: call it on every rank of a run on several, because it reads placed tensors or
            evaluates the state; otherwise on rank 0 only.

    Example:
        >>> import functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> show = Every("2 steps", lambda state: print("step", state.counters.step))
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="4 steps", listeners=[show])
        step 2
        step 4
    """

    every: Interval = attrs.field(converter=Interval)
    function: Callable[[TrainState], object]
    every_rank: bool = attrs.field(default=False, kw_only=True)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Start counting."""
        self.every.begin(event.state.counters, event.batches)

    def on_batch_end(self, event: events.BatchEnd) -> events.Stop | None:
        """Call the function if it is due."""
        if not self.every.due(event.state.counters):
            return None
        answer = call_isolated(self.function, event.state)
        return answer if isinstance(answer, events.Stop) else None


@attrs.define(eq=False)
class Sampler:
    """A listener that calls a function at an interval, or once after the evaluations of a step.

    A subclass receives the results.
    """

    every_rank = True  # the function evaluates the state, which may be placed

    program: Program
    function: Callable[[Program, TrainState], Any]
    every: Interval | None = attrs.field(default=None, converter=optional(Interval))
    _last: int | None = attrs.field(init=False, default=None)
    _writes: bool = attrs.field(init=False, default=True)

    def receive(self, step: int, found: Any) -> None:
        """Write a result, on the rank that writes."""
        raise NotImplementedError

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Start counting."""
        self._writes = event.rank == 0
        if self.every is not None:
            self.every.begin(event.state.counters, event.batches)
        if event.resumed is None:
            self._last = None

    def on_batch_end(self, event: events.BatchEnd) -> None:
        """Call the function if it is due."""
        if self.every is not None and self.every.due(event.state.counters):
            self._sample(event.state)

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Call the function after an evaluation, once for all evaluations of a step."""
        if self.every is None and event.state.counters.step != self._last:
            self._sample(event.state)

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last call; a resumed run may repeat an evaluation."""
        return {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the step of the last call."""
        self._last = state["last"]

    def _sample(self, state: TrainState) -> None:
        found = call_isolated(lambda state: self.function(self.program, state), state)
        self._last = state.counters.step
        self.receive(self._last, found)


def call_isolated(function: Callable[[TrainState], object], state: TrainState) -> object:
    """Call a function of a state with random generators of its own.

    The generators are seeded from the state's seed and step.

    Example:
        >>> import functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> draw = lambda state: torch.rand(()).item()
        >>> call_isolated(draw, program.init()) == call_isolated(draw, program.init())
        True
    """
    with sample_scope() as scope:
        scope.seed(state.rng.stream("listener", state.counters.step))
        return function(state)
