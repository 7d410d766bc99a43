"""Log gradient norms by group of parameters."""

from __future__ import annotations

import attrs
from torch import Tensor

from functrain.core.inspection import gradients
from functrain.core.program import Program
from functrain.errors.calls import explained
from functrain.listeners.intervals import whole_steps
from functrain.listeners.parameter_groups import Patterns, grouped, norms
from functrain.training import events
from functrain.training.durations import Duration


@explained
@attrs.define(eq=False)
class GradientMonitor:
    """A listener that adds the norms of the gradients, by group, to the log: ``grad_norm.NAME``.

    At the interval ``every`` the gradients before clipping are computed a second time, so such a
    step takes about twice as long. The host does not wait for the device. List this listener
    before the sinks.

    Args:
        program: what is trained.
        every: the interval, in steps.
        groups: patterns for parameter paths by the group's name; the first match counts. By
            default each direct child of the model is a group.

    Raises:
        ConfigurationError: ``every`` is not given in steps, or a pattern matches no parameter.

    Example:
        >>> import functrain as ft, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> program = ft.program(model, lambda m, b: m(b).square().mean(), ft.optim.SGD(lr=0.1))
        >>> monitor = GradientMonitor(program, "2 steps", {"biases": "*.bias", "rest": "*"})
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="4 steps", listeners=[monitor])
        >>> run.history.column("grad_norm.rest")[0]
        [2, 4]
    """

    every_rank = True  # all ranks take gradients together

    program: Program
    every: Duration | str = "100 steps"
    groups: Patterns | None = None
    _steps: int = attrs.field(init=False)
    _paths: dict[str, list[str]] = attrs.field(init=False)
    _found: dict[str, Tensor] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._steps = whole_steps(self.every, type(self).__name__)
        self._paths = grouped(self.program, self.groups)

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Compute the gradients if they are due."""
        if (event.state.counters.step + 1) % self._steps == 0:
            found = norms(self._paths, gradients(self.program, event.state, event.batch))
            self._found = {f"grad_norm.{name}": norm for name, norm in found.items()}

    def on_batch_end(self, event: events.BatchEnd) -> dict[str, Tensor] | None:
        """Return the norms as metrics of the step."""
        if not self._found:
            return None
        found, self._found = self._found, {}
        return found
