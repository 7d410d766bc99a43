"""A device step whose gradients are graphs: one for each form of parameters and batch.

Forward, backward, unscaling, norm and clipping are in the graph of a step. The update is the
optimizer's kernel, as in an eager step; ``update="graph"`` compiles its rule instead. Of all graphs
only that of an update writes to its inputs.
"""

from __future__ import annotations

import functools
import operator
import weakref
from contextlib import nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core import step
from functrain.core.accumulation import step_gradients
from functrain.core.batch import Batch
from functrain.core.first_step import warn_of_memory
from functrain.core.gradients import GradientInputs, Gradients
from functrain.core.loss import LossOutput
from functrain.core.optimizer import Optimizer
from functrain.core.recipe import Recipe, StaticParts
from functrain.core.rng import without_autocast
from functrain.core.state import Donation, Tensors
from functrain.errors import CaptureError
from functrain.transforms.graph.capture import capture
from functrain.transforms.graph.functions import (
    ObjectMetricsError,
    gradients_of_part,
    gradients_of_step,
    update_by_rule,
)
from functrain.transforms.graph.graph_step import Graph, GraphStep, RunsEagerlyError
from functrain.transforms.graph.inputs import as_tensors, form, on_device
from functrain.transforms.graph.param_writes import capture_with_copies


@attrs.define(eq=False)
class Seen:
    """Memory of earlier steps, which changes nothing except the time a step takes.

    Attributes:
        forms: numbers of the forms of parameters.
        params: weak references to the last ones, their names, and the number of their form. They
            are one value: threads may share a program.
        object_metrics: names of metrics that no graph of a micro-batch returns.
        update_draws: whether the optimizer draws random numbers; ``None`` before the first update.
    """

    forms: dict[Any, int] = attrs.field(factory=dict)
    params: tuple[list[weakref.ref[Tensor]], list[str], int] = ([], [], -1)
    object_metrics: set[str] = attrs.field(factory=set)
    update_draws: bool | None = None

    def number(self, params: Tensors) -> int:
        """Return the number of the form of parameters; a donated step has those of the last."""
        references, names, number = self.params
        tensors = list(params.values())
        same = map(operator.is_, map(operator.call, references), tensors)
        if len(references) == len(tensors) and list(params) == names and all(same):
            return number
        found = self.forms.setdefault(form(params)[0], len(self.forms))
        self.params = list(map(weakref.ref, tensors)), list(params), found
        return found

    def watched_update(
        self, optimizer: Optimizer, grads: Tensors, state: Any, params: Tensors, lr: Any
    ) -> tuple[Tensors, Any]:
        """Make an update, and see whether it draws."""
        before = torch.get_rng_state()
        found = step.EAGER.update(optimizer, grads, state, params, lr)
        self.update_draws = not torch.equal(before, torch.get_rng_state())
        return found


@attrs.frozen(eq=False, repr=False)
class Compiled(GraphStep):
    """The device step of one program by graphs.

    Attributes:
        compiles_update: whether the optimizer's rule is compiled, too.
        seen: of parameters, metrics and updates.
    """

    compiles_update: bool = False
    seen: Seen = attrs.field(factory=Seen, init=False)

    @property
    def description(self) -> str:
        """A text that tells its numbers from those of other ways to make the step."""
        update = ", update=graph" if self.compiles_update else ""
        return f"compiled({self.lowering.description}{update})"

    def __call__(
        self,
        state: step.DeviceState,
        batches: list[Batch],
        lr: Any,
        ema_due: bool,
        donation: Donation | None = None,
        seed: int | None = None,
    ) -> tuple[step.DeviceState, step.Outputs]:
        """See :class:`functrain.core.step.AnyDeviceStep`."""
        inputs, device = (state, batches, lr, ema_due, donation), state["skipped"].device
        try:
            kernels, draws = self._kernels(state, on_device(batches, device))
            by_graphs = step.DeviceStep(kernels, self.fixed)
            with nullcontext() if draws else without_autocast(device):
                return by_graphs.take_step(*inputs, seed if draws else None)
        except ObjectMetricsError as error:
            self.seen.object_metrics.update(error.names)
            return self(*inputs, seed)
        except RunsEagerlyError:
            pass
        except CaptureError as error:  # of a form
            self.fall_back(error)
        return step.eager(self.fixed)(*inputs, seed)

    def warm(self, state: step.DeviceState, batches: list[Batch], lr: Any, ema_due: bool) -> None:
        """See :class:`functrain.core.step.Warmable`."""
        self(state, batches, lr, ema_due, None, 0)  # a pure step, whose result is dropped

    def _kernels(self, state: step.DeviceState, batches: list[Batch]) -> tuple[step.Kernels, bool]:
        """Return the kernels of a step, and whether they draw random numbers."""
        update_draws = self.seen.update_draws is not False
        if len(batches) > 1 and not self.seen.object_metrics:
            part = self._gradients_of_part
            kernels = step.EAGER._replace(gradients=functools.partial(step_gradients, part))
            draws = True
        else:
            given = {name: state[name] for name in ("params", "buffers", "loss_scale")}
            given["batches"] = batches
            key, tensors = self._form("step", given)
            graph = self.graph(key, lambda: self._graph_of_step(given, state["skipped"].device))
            gradients = functools.partial(_gradients_of_step, graph, tensors)
            kernels = step.EAGER._replace(gradients=gradients, clip=_as_it_is)
            draws = graph.draws
        if self.compiles_update:
            return kernels._replace(update=self._update), True
        if self.seen.update_draws is None and self.fixed.trainable:
            kernels = kernels._replace(update=self.seen.watched_update)
        return kernels, draws or update_draws

    def _graph_of_step(self, given: dict[str, Any], device: torch.device) -> Graph:
        graph = self._capture(functools.partial(gradients_of_step, self.fixed), given)
        if self.fixed.model.attributes.left:  # the forward of a capture has no values to compare
            params, buffers, (first, *_) = given["params"], given["buffers"], given["batches"]
            warn_of_memory(self.fixed, params, buffers, first, device)
        return graph

    def _gradients_of_part(self, inputs: GradientInputs) -> Gradients:
        """Return the gradients of one of several micro-batches."""
        names = ("params", "buffers", "scale", "batch")
        given = {name: getattr(inputs, name) for name in names}
        function = functools.partial(gradients_of_part, inputs)
        key, tensors = self._form("part", given)
        found = self.graph(key, lambda: self._capture(function, given))(tensors)
        params = inputs.params
        params.update(found["written"])
        loss_output = LossOutput(found["loss"], found["weight"], found["metrics"])
        return Gradients(found["grads"], params, found["buffers"], loss_output)

    def _update(
        self, optimizer: Optimizer, grads: Tensors, state: Any, params: Tensors, lr: Any
    ) -> tuple[Tensors, Any]:
        """Update parameters in place by the optimizer's rule."""
        rates = as_tensors(lr, next(iter(params.values())).device)
        given = {"grads": grads, "optimizer": state, "params": params, "lr": rates}
        function = functools.partial(update_by_rule, self.fixed)
        key, tensors = form(given)
        try:
            graph = self.graph(("update", key), lambda: self._capture(function, given))
        except RunsEagerlyError:
            return step.EAGER.update(optimizer, grads, state, params, lr)
        graph(tensors)
        return params, state

    def _form(self, name: str, given: dict[str, Any]) -> tuple[Any, list[Tensor]]:
        """Return the key of a graph of these inputs, ``params`` first, and their tensors."""
        params, *rest = given.values()
        key, tensors = form(rest)
        return (name, self.seen.number(params), key), [*params.values(), *tensors]

    def _capture(self, function: Any, given: dict[str, Any]) -> Graph:
        model = self.fixed.model
        captured = capture_with_copies(lambda: capture(function, given, model.module), model.writes)
        return Graph(captured, given, self.lowering)


def _gradients_of_step(
    graph: Graph,
    tensors: list[Tensor],
    fixed: StaticParts,
    state: step.DeviceState,
    batches: list[Batch],
    seed: int | None,
) -> Gradients:
    """Return the gradients of a step by its graph."""
    found = graph(tensors)
    params = {**state["params"], **found["written"]}
    loss_output = LossOutput(found["loss"], None, found["metrics"])
    return Gradients(found["grads"], params, found["buffers"], loss_output, found["norm"])


def _as_it_is(recipe: Recipe, found: Gradients) -> tuple[Tensors, Tensor]:
    """Return what a graph has clipped."""
    assert found.norm is not None
    return found.grads, found.norm
