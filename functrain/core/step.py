"""The device part of a train step: a pure function from dicts of tensors to dicts of tensors.

In the order it happens: gradients (over micro-batches, weighted) -> unscale -> norm -> clip ->
finite? -> optimizer -> EMA. Nothing here knows about counters, schedules, files or clocks, so this
is the part that is compiled, vmapped and sharded.

There are two of the same signature. :func:`eager` uses autograd and the optimizers' kernels.
:func:`functional` uses ``torch.func`` and the optimizers' rules; it works on any tensor-like values
and never asks for one on the host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import attrs
import torch
from torch import Tensor, nn

from functrain import tree
from functrain.core import clipping, nonfinite, precision
from functrain.core.accumulation import weighted_mean
from functrain.core.batch import Batch, copied
from functrain.core.gradients import (
    GradientFunction,
    Gradients,
    Take,
    by_autograd,
    by_func,
)
from functrain.core.loss import Outcome, evaluate
from functrain.core.memory import unshared
from functrain.core.metrics import computed as metrics_computed
from functrain.core.model import Model
from functrain.core.recipe import Recipe
from functrain.core.rng import refuse_system_seed, scoped
from functrain.core.state import Donation, Tensors
from functrain.errors import LossError
from functrain.tree.copying import copy

# params, buffers, optimizer, ema, loss_scale, skipped: the parts of a TrainState on the device.
DeviceState = dict[str, Any]
Outputs = dict[str, Any]


class DeviceStep(Protocol):
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


@attrs.frozen(eq=False, repr=False)
class Fixed:
    """What a device step needs besides its arguments; none of it changes."""

    recipe: Recipe
    model: Model
    trainable: list[str]

    @property
    def updated(self) -> list[str]:
        """The parameters that a step writes to: those it trains, and what its forward writes to."""
        frozen = self.model.written.paths.difference(self.trainable)
        return [*self.trainable, *sorted(frozen)] if frozen else self.trainable


class Computed(NamedTuple):
    """Gradients before clipping, parameters and buffers after the forward, and the rest."""

    grads: Tensors
    params: Tensors
    buffers: Tensors
    outcome: Outcome
    grad_norm: Tensor


def is_eager(device_step: DeviceStep) -> bool:
    """Whether a device step is that of a program to which nothing has been applied."""
    return isinstance(device_step, functools.partial) and device_step.func is eager


def eager(
    fixed: Fixed,
    state: DeviceState,
    batches: list[Batch],
    lr: Any,
    ema_due: bool,
    donation: Donation | None = None,
    seed: int | None = None,
) -> tuple[DeviceState, Outputs]:
    """One update with autograd and the optimizer's kernel.

    Args:
        fixed: recipe, model shell, trainable paths.
        state: the device part of a state; not changed without a ``donation``.
        batches: micro-batches, on any device; not changed.
        lr: learning rate, or one by group.
        ema_due: whether this update moves the average.
        donation: the tensors of ``state`` may be overwritten; they become those of the result.
        seed: of this step's random stream; without one, torch's generators are used as they are.

    Returns:
        (new device state, outputs). Outputs hold ``loss``, ``grad_norm`` and the user's
        ``metrics``.
    """
    with _stream(seed, state):
        return _by_kernel(fixed, state, batches, lr, ema_due, donation, seed)


def _by_kernel(
    fixed: Fixed,
    state: DeviceState,
    batches: list[Batch],
    lr: Any,
    ema_due: bool,
    donation: Donation | None,
    seed: int | None,
) -> tuple[DeviceState, Outputs]:
    recipe = fixed.recipe
    computing = functools.partial(_watched, fixed, state, batches, donation)
    computed = computing()
    if seed is not None:
        refuse_system_seed(seed, computing)
    outputs = _outputs(computed)
    # The host may ask the CPU at no cost, and must ask any device before it can raise.
    ask = recipe.can_skip and (recipe.nonfinite == "raise" or computed.grad_norm.is_cpu)
    if ask and not (finite := nonfinite.finite_on_host(outputs)):
        never = torch.zeros_like(state["skipped"], dtype=torch.bool)
        return nonfinite.rejected(state, never), {**outputs, "finite": finite}
    select = recipe.can_skip and not ask
    # A loss may have kept a view of a parameter; that is left as it was.
    owned = {**state, "params": computed.params}
    trained = [computed.params[path] for path in fixed.trainable]
    if donation is None or select or not unshared(trained):
        owned = copied_state(owned, fixed.trainable)
    else:
        donation.take()
        owned = {**owned, "optimizer": tree.thawed(state["optimizer"])}  # some write into it
    _apply_kernel(fixed, owned, computed, lr, ema_due)
    new = {**owned, "buffers": computed.buffers}
    if select:
        return nonfinite.selected(nonfinite.finite(outputs), new, state), outputs
    return nonfinite.accepted(new), {**outputs, "finite": True}


def _watched(
    fixed: Fixed, state: DeviceState, batches: list[Batch], donation: Donation | None
) -> Computed:
    """The gradients of an eager step, whose first ones tell what the forward writes to."""
    norm = clipping.reported_norm if fixed.recipe.clip_norm is None else clipping.global_norm
    written = fixed.model.written
    params = state["params"]
    copied = written.suspects(params, fixed.trainable, donated=donation is not None)
    computed = compute(fixed, by_autograd, norm, state, batches, copied)
    if not copied:
        return computed
    written.notice(params, computed.params)
    untouched = copied.difference(fixed.updated)  # states go on to share them
    after = {**computed.params, **{path: params[path] for path in untouched}}
    return computed._replace(params=after)


def functional(
    fixed: Fixed,
    state: DeviceState,
    batches: list[Batch],
    lr: Any,
    ema_due: bool | Tensor,
    donation: Donation | None = None,
    seed: int | None = None,
    gradient_function: GradientFunction = by_func,
) -> tuple[DeviceState, Outputs]:
    """One update with ``torch.func`` and the optimizer's rule (see :func:`eager`).

    Works under ``torch.func.vmap`` and can be captured as a graph; ``lr``, ``ema_due`` and
    hyperparameters may be tensors. Nothing is changed in place.
    """
    with _stream(seed, state):
        return _functional(fixed, state, batches, lr, ema_due, gradient_function)


def _functional(
    fixed: Fixed,
    state: DeviceState,
    batches: list[Batch],
    lr: Any,
    ema_due: bool | Tensor,
    gradient_function: GradientFunction,
) -> tuple[DeviceState, Outputs]:
    norm = functools.partial(clipping.global_norm, foreach=False)
    computed = compute(fixed, gradient_function, norm, state, batches)
    return by_rule(fixed, state, computed, lr, ema_due)


def by_rule(
    fixed: Fixed, state: DeviceState, computed: Computed, lr: Any, ema_due: bool | Tensor
) -> tuple[DeviceState, Outputs]:
    """What follows the gradients, with the optimizer's rule; nothing is changed in place."""
    recipe = fixed.recipe
    trainable = {path: computed.params[path] for path in fixed.trainable}
    grads = clipped(recipe, computed, foreach=False)
    updated, optimizer = recipe.optimizer.update(grads, state["optimizer"], trainable, lr)
    new = {**state, "params": {**computed.params, **updated}, "optimizer": optimizer}
    new["buffers"] = computed.buffers
    if recipe.ema is not None and ema_due is not False:
        average = recipe.ema.update(state["ema"], new["params"])
        if isinstance(ema_due, Tensor):
            average = nonfinite.chosen(ema_due, average, state["ema"])
        new["ema"] = average
    outputs = _outputs(computed)
    if not recipe.can_skip:
        return new, outputs
    finite = nonfinite.finite(outputs)
    return nonfinite.selected(finite, new, state), {**outputs, "finite": finite}


def compute(
    fixed: Fixed,
    gradient_function: GradientFunction,
    norm: Callable[[list[Tensor]], Tensor],
    state: DeviceState,
    batches: list[Batch],
    watched: Collection[str] = (),
) -> Computed:
    """Forward, backward over micro-batches, unscaling and norm; nothing is updated.

    The forward may write to parameters: those that it is known to write to are copied first, and
    those that are ``watched``.
    """
    params = fixed.model.written.owned(state["params"], watched)
    device = next(iter(params.values())).device
    of_batch = differentiation(fixed, gradient_function, params, device)
    scale = None if state["loss_scale"] is None else state["loss_scale"]["scale"]
    # The forward writes into the buffers it is given (BatchNorm does so unseen by autograd).
    own = {path: buffer.clone() for path, buffer in state["buffers"].items()}
    grads, buffers, outcome = weighted_mean(
        of_batch, copied(batches, device), fixed.trainable, own, scale
    )
    require_gradients(fixed, grads)
    return Computed(grads, params, buffers, outcome, norm(list(grads.values())))


def differentiation(
    fixed: Fixed, gradient_function: GradientFunction, params: Tensors, device: torch.device
) -> Callable[[Tensors, Batch, Tensor | None, Take | None], Gradients]:
    """From (buffers, batch, scale, take) to the gradients that the recipe asks for."""
    recipe = fixed.recipe
    forward = functools.partial(_forward, recipe, device)
    if recipe.sharpness is not None:
        gradient_function = recipe.sharpness.around(gradient_function)
    return functools.partial(gradient_function, fixed.model, forward, fixed.trainable, params)


def require_gradients(fixed: Fixed, grads: Collection[str]) -> None:
    """Refuse a loss that no trainable parameter had a part in.

    Raises:
        LossError: there is no gradient.
    """
    if not grads:
        raise LossError(
            "the loss does not depend on any of the trainable parameters: "
            f"{fixed.trainable[:5]}. Compute it from the model passed to loss(model, batch)."
        )


def clipped(recipe: Recipe, computed: Computed, foreach: bool = True) -> Tensors:
    """The gradients of a step, clipped by norm and by value where the recipe says so."""
    flat = list(computed.grads.values())
    if recipe.clip_norm is not None:
        flat = clipping.clip_by_norm(flat, recipe.clip_norm, computed.grad_norm, foreach)
    if recipe.clip_value is not None:
        flat = clipping.clip_by_value(flat, recipe.clip_value, foreach)
    return dict(zip(computed.grads, flat, strict=True))


def _forward(recipe: Recipe, device: torch.device, module: nn.Module, batch: Batch) -> Outcome:
    with precision.autocast(recipe.precision, device):
        return evaluate(recipe.loss, module, batch, device)


def _apply_kernel(
    fixed: Fixed, owned: DeviceState, computed: Computed, lr: Any, ema_due: bool
) -> None:
    recipe = fixed.recipe
    trainable = {path: owned["params"][path] for path in fixed.trainable}
    grads = clipped(recipe, computed)
    recipe.optimizer.update_(grads, owned["optimizer"], trainable, lr)
    if recipe.ema is not None and ema_due:
        recipe.ema.update_(owned["ema"], owned["params"])


def copied_state(state: DeviceState, paths: list[str]) -> DeviceState:
    """Copies of what an update writes to; other parameters are shared, nothing writes to them.

    Args:
        state: not changed. Its buffers, which the forward replaces, are kept as they are.
        paths: of the parameters that are written to.
    """
    trainable = copy({path: state["params"][path] for path in paths})
    return {
        **state,
        "params": {**state["params"], **trainable},
        "optimizer": copy(state["optimizer"]),
        "ema": copy(state["ema"]),
    }


def _stream(seed: int | None, state: DeviceState) -> AbstractContextManager[object]:
    return nullcontext() if seed is None else scoped(seed, state["skipped"].device)


def _outputs(computed: Computed) -> Outputs:
    value, _, metrics = computed.outcome
    found = metrics_computed(metrics, value.device)
    return {"loss": value, "grad_norm": computed.grad_norm, "metrics": found}
