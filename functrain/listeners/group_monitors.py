"""Log gradient norms and the relative size of updates, by group of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from functrain.core.clipping import global_norm
from functrain.core.first_step import refuse_members
from functrain.core.inspection import gradients
from functrain.core.optimizer import means
from functrain.core.program import Program
from functrain.core.state import Tensors, params_of
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.nearest import nearest
from functrain.listeners.intervals import whole_steps
from functrain.populations.program import Population
from functrain.training import events
from functrain.training.durations import Duration
from functrain.tree.placed import whole

Pattern: TypeAlias = str | Sequence[str] | Callable[[str, Tensor], bool]
Patterns: TypeAlias = Mapping[str, Pattern]


@attrs.define(eq=False)
class _GroupMonitor:
    """A monitor of groups of parameters, which is due at multiples of ``every``."""

    every_rank = True  # all ranks take gradients together, or gather placed weights

    program: Program
    every: Duration | str = "100 steps"
    groups: Patterns | None = None
    _steps: int = attrs.field(init=False)
    _paths: dict[str, list[str]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._steps = whole_steps(self.every, type(self).__name__)
        self._paths = grouped(self.program, self.groups)


@explained
@attrs.define(eq=False)
class GradientMonitor(_GroupMonitor):
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

    _found: dict[str, Tensor] = attrs.field(init=False, factory=dict)

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


@explained
@attrs.define(eq=False)
class UpdateMonitor(_GroupMonitor):
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

    _before: Tensors | None = attrs.field(init=False, default=None)

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
        after = params_of(event.state)
        with torch.no_grad():
            moved = {
                path: whole(after[path]) - whole(before[path])
                for paths in self._paths.values()
                for path in paths
            }
            old = {path: whole(before[path]) for path in moved}
            sizes, updates = norms(self._paths, old), norms(self._paths, moved)
            return {f"update_ratio.{name}": updates[name] / sizes[name] for name in updates}


def grouped(program: Program, patterns: Patterns | None) -> dict[str, list[str]]:
    """Return the trainable paths of each group.

    The first match gets a parameter; one without a match belongs to no group. By default each
    direct child of the model is a group.

    Example:
        >>> import functrain as ft, torch
        >>> from torch.nn import Linear, Sequential, Tanh
        >>> model = Sequential(Linear(2, 3), Tanh(), Linear(3, 1))
        >>> program = ft.program(model, lambda m, b: m(b).mean(), ft.optim.SGD(lr=0.1))
        >>> grouped(program, {"biases": "*.bias"})
        {'biases': ['0.bias', '2.bias']}
        >>> list(grouped(program, None))
        ['0', '2']
    """
    if isinstance(program, Population):
        raise ConfigurationError(
            "this listener takes one program, got a population, whose members have norms of their "
            'own. The metric "grad_norm" has that of each member'
        )
    paths, params = program.fixed.trainable, program.fixed.model.named_params
    groups: dict[str, list[str]] = {name: [] for name in patterns or {}}
    for path in paths:
        if patterns is None:
            groups.setdefault(path.partition(".")[0], []).append(path)
            continue
        name = next((name for name in groups if means(patterns[name], path, params)), None)
        if name is not None:
            groups[name].append(path)
    for name, pattern in (patterns or {}).items():
        if not groups[name]:
            raise ConfigurationError(
                f"group {name!r}: {pattern!r} matches none of the {len(paths)} trainable "
                f"parameters that no earlier group has{nearest(str(pattern), paths)}"
            )
    return groups


def norms(groups: Mapping[str, list[str]], tensors: Tensors) -> dict[str, Tensor]:
    """Return the 2-norm of each group that has tensors, as 0-dim tensors on their device.

    Example:
        >>> import torch
        >>> norms({"all": ["a", "b"]}, {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
        {'all': tensor(5.)}
    """
    found = {name: [tensors[p] for p in paths if p in tensors] for name, paths in groups.items()}
    return {name: global_norm(values) for name, values in found.items() if values}
