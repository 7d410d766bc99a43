"""Any function of the state, called as training goes on, without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from functrain.core.rng import sample_scope
from functrain.core.state import TrainState
from functrain.listeners.intervals import Interval
from functrain.training import events
from functrain.training.durations import Duration


@attrs.define(eq=False)
class Every:
    """A listener that calls a function every so often.

    All random generators (torch's, ``random``, NumPy's) are lent to the call, started from the
    state's own seed, and put back bit for bit: training is the same with it and without, and
    the call draws the same in a resumed run.

    Args:
        every: how often: a duration.
        function: takes the state after the step. What it returns is not used, unless it is an
            ``ft.Stop``, which ends the run.

    Example:
        >>> import functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> show = Every("2 steps", lambda state: print("step", state.counters.step))
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="4 steps", listeners=[show])
        step 2
        step 4
    """

    every: Duration | str
    function: Callable[[TrainState], object]
    _interval: Interval = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._interval = Interval(self.every)

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Count from here on."""
        self._interval.begin(event.state.counters, event.batches)

    def on_batch_end(self, event: events.BatchEnd) -> events.Stop | None:
        """Call the function after a step that is due."""
        if not self._interval.due(event.state.counters):
            return None
        answer = undisturbed(self.function, event.state)
        return answer if isinstance(answer, events.Stop) else None


def undisturbed(function: Callable[[TrainState], object], state: TrainState) -> object:
    """What a function says of a state; it may draw random numbers, nobody else will notice.

    Args:
        function: draws from generators that are started from the state's seed and step.
        state: where training stands.

    Example:
        >>> import functrain as ft, torch
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> draw = lambda state: torch.rand(()).item()
        >>> undisturbed(draw, program.init()) == undisturbed(draw, program.init())
        True
    """
    with sample_scope() as scope:
        scope.seed(state.rng.stream("listener", state.counters.step))
        return function(state)
