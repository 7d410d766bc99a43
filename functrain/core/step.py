"""The device part of a train step: a pure function from dicts of tensors to dicts of tensors.

:meth:`DeviceStep.take_step` is the whole of it. Nothing here knows about counters, schedules, files
or clocks, so this is the part that is compiled, vmapped and sharded.

It runs in two ways. :data:`EAGER` uses the optimizer's kernel and the host's knowledge of the CPU;
:func:`by_rule` uses the optimizer's rule, works on any tensor-like values, and never asks for one
on the host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import attrs
from torch import Tensor

from functrain import tree
from functrain.core import nonfinite
from functrain.core.accumulation import step_gradients
from functrain.core.batch import Batch
from functrain.core.clipping import clipped
from functrain.core.ema import Average
from functrain.core.gradients import GradientFunction, Gradients, by_autograd
from functrain.core.loss import computed
from functrain.core.optimizer import Optimizer
from functrain.core.recipe import Recipe, StaticParts
from functrain.core.rng import refuse_system_seed, scoped
from functrain.core.state import Donation, Tensors, TrainState, fields_of
from functrain.tree.nodes import copy

# params, buffers, optimizer, ema, loss_scale, skipped: the parts of a TrainState on the device.
DeviceState = dict[str, Any]
Outputs = dict[str, Any]
StepGradientFunction = Callable[[StaticParts, DeviceState, list[Batch], int | None], Gradients]


_PARTS = ("params", "buffers", "optimizer", "ema", "loss_scale")


def device_state(state: TrainState) -> DeviceState:
    """Return the part of a state that its device step takes."""
    return {**fields_of(state, _PARTS), "skipped": state.counters.skipped}


class AnyDeviceStep(Protocol):
    """The device part of a step.

    With a ``donation`` it may write to the tensors of the state it is given, once it has taken the
    donation; they then are those of the state it returns. It never writes to a batch. Random
    numbers are drawn from torch's generators, started at ``seed`` where that is given.
    """

    def __call__(
        self,
        state: DeviceState,
        batches: list[Batch],
        lr: Any,
        ema_due: bool,
        donation: Donation | None = None,
        seed: int | None = None,
    ) -> tuple[DeviceState, Outputs]: ...


@runtime_checkable
class Warmable(Protocol):
    """A device step that is compiled for the forms of its inputs."""

    def warm(self, state: DeviceState, batches: list[Batch], lr: Any, ema_due: bool) -> None:
        """Compile the step for inputs like these; nothing else happens."""


class PlacedStep(AnyDeviceStep, Protocol):
    """A device step of several processes, with what a program needs to know of them."""

    def place(self, state: TrainState) -> TrainState:
        """Return a state with this process's part of the leaves that are divided."""
        ...

    def gathered(self, state: TrainState) -> TrainState:
        """Return a state with whole leaves; every process calls it."""
        ...

    def refuse_unplaced(self, state: TrainState) -> None:
        """Refuse a state that is placed otherwise."""
        ...

    def shared(self, batch: Batch, accumulate: int) -> Any:
        """Return this process's parts of a batch, and the numbers of :class:`Split`."""
        ...

    def all_gradients(
        self, state: DeviceState, batch: Any, seed: int, locate: bool = False
    ) -> tuple[Tensors, str | None]:
        """Return the whole gradients of a step, and where its first NaN is from."""
        ...


class Kernels(NamedTuple):
    """The ways in which an eager step differs from one that is traced or vmapped.

    Attributes:
        gradients: (fixed, state, batches, seed) -> those before clipping.
        clip: returns clipped gradients, and the norm that they had before.
        in_place: whether the step writes to tensors of its own.
        finite: asks whether to apply the update; a tensor leaves the choice to the device.
        writable: returns the state that ``update`` may write to.
        update: the optimizer's rule, or its kernel with the signature of the rule.
        average: moves the average.
    """

    gradients: StepGradientFunction
    clip: Callable[[Recipe, Gradients], tuple[Tensors, Tensor]]
    in_place: bool
    finite: Callable[[Recipe, Outputs], bool | Tensor]
    writable: Callable[[StaticParts, DeviceState, Donation | None, bool | Tensor], DeviceState]
    update: Callable[[Optimizer, Tensors, Any, Tensors, Any], tuple[Tensors, Any]]
    average: Callable[[Average, dict[str, Any], Tensors, Any], dict[str, Any]]


@attrs.frozen(eq=False)
class DeviceStep:
    """The device part of a step by some kernels: a function, :meth:`take_step`."""

    kernels: Kernels
    fixed: StaticParts

    def take_step(
        self,
        state: DeviceState,
        batches: list[Batch],
        lr: Any,
        ema_due: bool | Tensor,
        donation: Donation | None = None,
        seed: int | None = None,
    ) -> tuple[DeviceState, Outputs]:
        """Make one update: gradients, clipping, finite check, optimizer, average, selection.

        The state and the micro-batches are not changed; with a ``donation`` the tensors of the
        state may be overwritten and become those of the result. ``seed`` is that of this step's
        random stream; without one, torch's generators are used as they are. Outputs hold ``loss``,
        ``grad_norm`` and the user's ``metrics``; ``finite``, where the program may skip an update;
        and ``maker``, if the new state has memory of its own: what may write to it.
        """
        kernels, fixed, recipe = self.kernels, self.fixed, self.fixed.recipe
        device = state["skipped"].device
        with nullcontext() if seed is None else scoped(seed, device, draws=fixed.draws):
            gradients = functools.partial(kernels.gradients, fixed, state, batches, seed)
            found = gradients()
            if seed is not None:
                refuse_system_seed(seed, gradients)
            grads, norm = kernels.clip(recipe, found)
            loss, _, metrics = found.loss_output
            reported = computed(metrics, loss.device) if metrics else {}
            outputs = {"loss": loss, "grad_norm": norm, "metrics": reported}
            finite: bool | Tensor = True
            if recipe.can_skip:
                finite = outputs["finite"] = kernels.finite(recipe, outputs)
            if finite is False:
                return nonfinite.skipped(state, loss), outputs
            old = kernels.writable(fixed, {**state, "params": found.params}, donation, finite)
            trained = {path: old["params"][path] for path in fixed.trainable}
            trained, optimizer = kernels.update(
                recipe.optimizer, grads, old["optimizer"], trained, lr
            )
            params = {**old["params"], **trained}
            new = {**old, "params": params, "buffers": found.buffers, "optimizer": optimizer}
            if recipe.ema is not None:
                new["ema"] = kernels.average(recipe.ema, old["ema"], params, ema_due)
            if kernels.in_place:
                outputs["maker"] = fixed.trainable
            return nonfinite.selected(finite, new, state, loss), outputs

    __call__ = take_step


def by_rule(gradients: StepGradientFunction) -> Kernels:
    """Return pure functions only, given how a step finds its gradients.

    A step by them works under ``torch.func.vmap`` and can be captured as a graph: ``lr``,
    ``ema_due`` and hyperparameters may be tensors, and nothing is changed in place.
    """
    return Kernels(
        gradients=gradients,
        clip=functools.partial(_clip, False),
        in_place=False,
        finite=lambda recipe, outputs: nonfinite.finite(outputs),
        writable=lambda fixed, state, donation, finite: state,
        update=lambda optimizer, *given: optimizer.update(*given),
        average=lambda ema, *given: ema.update(*given),
    )


def _clip(foreach: bool, recipe: Recipe, found: Gradients) -> tuple[Tensors, Tensor]:
    return clipped(found.grads, recipe.clip_norm, recipe.clip_value, foreach, found.norm)


def functional(fixed: StaticParts, gradient_function: GradientFunction) -> DeviceStep:
    """Return the device step :func:`by_rule` that takes gradients of each micro-batch so."""
    return DeviceStep(by_rule(functools.partial(step_gradients, gradient_function)), fixed)


def eager(fixed: StaticParts) -> DeviceStep:
    """Return the device step of a program to which nothing has been applied."""
    return DeviceStep(EAGER, fixed)


def is_eager(device_step: AnyDeviceStep) -> bool:
    """Return whether a device step is that of :func:`eager`."""
    return isinstance(device_step, DeviceStep) and device_step.kernels is EAGER


def copied_state(state: DeviceState, paths: list[str]) -> DeviceState:
    """Return a state with copies of the tensors that an update writes to; it shares the others."""
    trainable = copy({path: state["params"][path] for path in paths})
    return {
        **state,
        "params": {**state["params"], **trainable},
        "optimizer": copy(state["optimizer"]),
        "ema": copy(state["ema"]),
    }


def _donated_or_copied(
    fixed: StaticParts, state: DeviceState, donation: Donation | None, finite: bool | Tensor
) -> DeviceState:
    """Take the donation and return its tensors, or return copies."""
    is_own = donation is not None and donation.lends_to(fixed.trainable)
    if donation is None or not is_own or isinstance(finite, Tensor) or fixed.model.writes.kept:
        return copied_state(state, fixed.trainable)
    donation.take()
    return {**state, "optimizer": tree.thawed(state["optimizer"])}  # some write into it


def _update_in_place(
    optimizer: Optimizer, grads: Tensors, state: Any, params: Tensors, lr: Any
) -> tuple[Tensors, Any]:
    optimizer.update_(grads, state, params, lr)
    return params, state


def _average_in_place(
    ema: Average, average: dict[str, Any], params: Tensors, due: bool
) -> dict[str, Any]:
    ema.update_(average, params, due)
    return average


EAGER = Kernels(
    gradients=functools.partial(step_gradients, by_autograd, watch=True),
    clip=functools.partial(_clip, True),
    in_place=True,
    finite=nonfinite.finite_on_host,
    writable=_donated_or_copied,
    update=_update_in_place,
    average=_average_in_place,
)
