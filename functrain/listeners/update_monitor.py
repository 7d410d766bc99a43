"""Log the size of updates relative to the size of the weights, by group of parameters."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from functrain.core.diagnosis import refuse_members
from functrain.core.program import Program
from functrain.core.state import Tensors
from functrain.errors.calls import explained
from functrain.listeners.intervals import whole_steps
from functrain.listeners.parameter_groups import Patterns, grouped, norms
from functrain.training import events
from functrain.training.durations import Duration
from functrain.tree.placed import whole


@explained
@attrs.define(eq=False)
class UpdateMonitor:
    """A listener that adds update-to-weight ratios, by group, to the log: ``update_ratio.NAME``.

    The ratio is ``|p_after - p_before| / |p_before|`` in the 2-norm over a group; about 1e-3 is
    usual (Karpathy, CS231n notes, "Ratio of weights:updates"). The monitor needs the weights
    of before the step, so ``fit`` cannot make such a step in place. List this listener before the
    sinks.

    Args:
        program: what is trained.
        every: the interval, in steps.
        groups: patterns for parameter paths by the group's name; the first match counts. By
            default each direct child of the model is a group.

    Raises:
        ConfigurationError: ``every`` is not given in steps, or a pattern matches no parameter.

    Example:
        >>> import functrain as ft, torch
        >>> program = ft.program(
        ...     torch.nn.Linear(2, 1), lambda m, b: m(b).square().mean(), ft.optim.SGD(lr=1e-3)
        ... )
        >>> monitor = UpdateMonitor(program, "1 step", {"all": "*"})
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="2 steps", listeners=[monitor])
        >>> [0 < ratio < 0.1 for ratio in run.history["update_ratio.all"]]
        [True, True]
    """

    every_rank = True  # placed weights are gathered

    program: Program
    every: Duration | str = "100 steps"
    groups: Patterns | None = None
    _steps: int = attrs.field(init=False)
    _paths: dict[str, list[str]] = attrs.field(init=False)
    _before: Tensors | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._steps = whole_steps(self.every, type(self).__name__)
        self._paths = grouped(self.program, self.groups)

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Keep the weights if their update is due.

        Raises:
            UnsupportedError: the run is of a population.
        """
        if (event.state.counters.step + 1) % self._steps == 0:
            refuse_members(event.state)
            self._before = event.state.params

    def on_batch_end(self, event: events.BatchEnd) -> dict[str, Tensor] | None:
        """Compare the weights with those before the step."""
        if self._before is None:
            return None
        before, self._before = self._before, None
        with torch.no_grad():
            moved = {
                path: whole(event.state.params[path]) - whole(before[path])
                for paths in self._paths.values()
                for path in paths
            }
            old = {path: whole(before[path]) for path in moved}
            sizes, updates = norms(self._paths, old), norms(self._paths, moved)
            return {f"update_ratio.{name}": updates[name] / sizes[name] for name in updates}
