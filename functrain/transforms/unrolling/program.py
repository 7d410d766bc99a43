"""A program whose steps are differentiable functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain.core import learning_rate, nonfinite, precision, step
from functrain.core.batch import Batch
from functrain.core.batch_lending import copied
from functrain.core.evaluation import evaluation_stream, weights_of
from functrain.core.first_step import refuse_members, require_state
from functrain.core.initial_state import Patterns, Rename, load
from functrain.core.loss import Metrics, computed, evaluate
from functrain.core.program import Program
from functrain.core.recipe import Recipe, StaticParts
from functrain.core.rng import scoped
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, UnsupportedError
from functrain.optim import FromTorch, Lookahead
from functrain.optim.hyperparameters import not_negative
from functrain.optim.wrapping import nested
from functrain.transforms.hyperparameters import check, find, refuse_gradient_hooks, replaced
from functrain.transforms.torch_internals import is_transforming
from functrain.transforms.unrolling.gradients import (
    differentiable_forward,
    differentiable_gradients,
)

# A learning rate, or a function from the number of a step to one.
Rate = Tensor | Callable[[int], Any]
Value = Any


def differentiable(program: Program, hyperparameters: Mapping[str, Value] | None = None) -> Program:
    """Return a program whose steps are differentiable functions.

    State and metrics of its ``train_step`` and ``eval_step`` keep the graph of torch's autograd, so
    a loss after any number of steps has gradients with respect to hyperparameters, to initial
    values (``init(params=...)``), to tensors in a batch, and to tensors in the loss. A step makes
    the update of the optimizer's rule, as a compiled one does, and changes nothing in place.

    It also works under ``torch.func`` (``grad``, ``jvp``, ``vmap``, ...). Where torch cannot ask
    for values on the host, as under ``vmap``, the program needs ``nonfinite="ignore"``.

    Args:
        program: an eager program.
        hyperparameters: numbers or 0-dim tensors by path: ``"lr"``, ``"weight_decay"``,
            ``"clip_norm"``, ``"ema"``, in groups ``"1.betas"``. A learning rate may be a function
            from the number of a step to one.

    Returns:
        The differentiable program.

    Raises:
        ConfigurationError: a name is unknown, or a value is no number or out of range; or the
            program has a part without derivatives.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: (model(batch) - 1).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> lr = torch.tensor(0.05, requires_grad=True)
        >>> program = ft.differentiable(program, {"lr": lr})
        >>> state, _ = ft.unrolled(program, program.init(), [torch.ones(4, 2)] * 3)
        >>> program.eval_step(state, torch.ones(4, 2))["loss"].backward()
        >>> bool(lr.grad < 0)
        True
    """
    _refuse_other_steps(program)
    recipe = program.recipe
    _refuse_without_derivatives(recipe)
    # The backward pass through the steps would call them too.
    refuse_gradient_hooks(program.fixed, "differentiable", "train with the plain program")
    if not isinstance(hyperparameters, Mapping | None):
        raise ConfigurationError(
            "hyperparameters: expected a dict such as {'lr': torch.tensor(0.1, "
            f"requires_grad=True)}}, got a {type(hyperparameters).__name__}"
        )
    fields: dict[str, Value] = {}
    rates: dict[tuple[str, ...], Rate] = {}
    device = next(iter(program.fixed.model.params.values())).device
    dtype = precision.widest(device)
    for path, value in (hyperparameters or {}).items():
        found, value = find(recipe, path), _wide(path, value, dtype)
        check(recipe, found, _number(value))
        if not found.is_rate:
            fields[path] = value
        elif found.location[-1] != "lr":
            raise ConfigurationError(
                f"hyperparameter {path!r}: a schedule is evaluated on the host. Give the learning "
                f"rate itself, as a function of the step: {{'lr': lambda step: ...}}"
            )
        else:
            keys = found.location
            names = tuple(keys[at + 1] for at, key in enumerate(keys) if key == "members")
            rates[names] = value
    fixed = StaticParts(replaced(recipe, fields), program.fixed.model, program.fixed.trainable)
    return Differentiable(
        fixed,
        program.schedules,
        _device_step(fixed),
        zero_rate="ignore",
        read=program.read,
        rates=rates,
    )


@attrs.frozen(eq=False, repr=False)
class Differentiable(Program):
    """A program whose states and metrics keep the graph of autograd.

    Attributes:
        rates: learning rates that replace those of the schedules, by the names of groups.
    """

    rates: Mapping[tuple[str, ...], Rate] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.donates:
            raise ConfigurationError(
                "a differentiable program cannot be donated, nor given to fit: its graph needs "
                "every state. Train by fit with the program that it was made of"
            )

    def init(
        self,
        seed: int = 0,
        params: Any = None,
        device: Any = None,
        *,
        only: Patterns | None = None,
        rename: Rename | None = None,
    ) -> TrainState:
        """Return the state before the first step, as a function of ``params`` if given."""
        params = self.read(params)
        state = super().init(seed, params, device, only=only, rename=rename)
        if params is None:
            return state
        with Attached():
            into = {**state.params, **state.buffers}
            loaded = load(self.fixed.model, into, params, only, rename)
            trained = {path: loaded[path] for path in self.fixed.trainable}
            average = self.recipe.ema
            return attrs.evolve(
                state,
                params={path: loaded[path] for path in state.params},
                buffers={path: loaded[path] for path in state.buffers},
                optimizer=self.recipe.optimizer.init(trained),
                ema=None if average is None else average.init(trained),
            )

    def rate(self, scheduler: learning_rate.SchedulerState, number: int) -> learning_rate.Rate:
        """Return the learning rate of a step, as a tensor where one was given."""
        found = super().rate(scheduler, number)
        for names, value in self.rates.items():
            found = _with_rate(found, names, value, number)
        return found

    def eval_step(self, state: TrainState, batch: Batch, weights: str = "params") -> Metrics:
        """Return loss and metrics of a batch in evaluation mode; the loss keeps its graph."""
        require_state(state, batch)
        refuse_members(state)
        recipe, model, device = self.recipe, self.fixed.model, state.device
        params = model.writes.owned(weights_of(self.fixed, state, weights))
        buffers = {path: buffer.clone() for path, buffer in state.buffers.items()}
        with (
            scoped(evaluation_stream(state), device),
            precision.autocast(recipe.precision, device),
            differentiable_forward(model),
            model.bound(params, buffers, training=False) as module,
        ):
            function = recipe.evaluate or recipe.loss
            loss_output = evaluate(function, module, copied(batch, device), device)
        return {"loss": loss_output.value, **computed(loss_output.metrics, device)}


def _device_step(fixed: StaticParts) -> step.AnyDeviceStep:
    kernels = step.by_rule(differentiable_gradients)._replace(finite=_finite)
    return step.DeviceStep(kernels, fixed)


def _finite(recipe: Recipe, outputs: step.Outputs) -> bool | Tensor:
    """Ask on the host: old and new values chosen on the device would make gradients NaN."""
    try:
        return nonfinite.finite_on_host(recipe, outputs)
    except RuntimeError as error:
        if not is_transforming():
            raise
        raise UnsupportedError(
            f'nonfinite="{recipe.nonfinite}" asks whether a step is finite, and torch cannot tell '
            'under torch.func.vmap: make the program with nonfinite="ignore"'
        ) from error


def _refuse_other_steps(program: Program) -> None:
    if not isinstance(program, Program):
        raise ConfigurationError(f"expected a functrain.Program, got a {type(program).__name__}")
    if program.sharded is not None or not step.is_eager(program.device_step):
        raise ConfigurationError(
            "differentiable takes an eager program of one process: apply it to the program itself, "
            "before compiled, checked or sharded, and it replaces them"
        )


def _refuse_without_derivatives(recipe: Recipe) -> None:
    """Refuse the parts of a recipe through which gradients would be lost or NaN."""
    optimizers = list(nested(recipe.optimizer))
    reason = None
    if any(isinstance(one, FromTorch) for one in optimizers):
        reason = "an optimizer of from_torch: use the one of functrain.optim that is the same"
    elif any(isinstance(one, Lookahead) and one.reset_state for one in optimizers):
        reason = "Lookahead(reset_state=True): leave out reset_state"
    elif recipe.sharpness is not None:
        reason = "sharpness_aware: it takes the worst point nearby as a constant"
    elif recipe.nonfinite == "skip":
        reason = 'nonfinite="skip": a skipped step has gradients that are NaN; choose "raise"'
    elif recipe.precision == "fp16":
        reason = 'precision="fp16", whose loss scale is found by skipped steps; choose "bf16"'
    elif recipe.detect_anomaly:
        reason = "detect_anomaly=True: use torch.autograd.detect_anomaly around its steps"
    if reason is not None:
        raise ConfigurationError(f"a differentiable program cannot have {reason}")


def _wide(path: str, value: Value, dtype: torch.dtype) -> Value:
    """Return a value in the dtype in which rules compute with numbers."""
    if isinstance(value, tuple | list):
        return tuple(_wide(path, one, dtype) for one in value)
    if not isinstance(value, Tensor):
        return value
    if value.ndim or not value.is_floating_point():
        raise ConfigurationError(
            f"hyperparameter {path!r}: expected a number or a 0-dim tensor of floats, got a tensor "
            f"of shape {list(value.shape)} and {value.dtype}"
        )
    return value.to(dtype)


def _number(value: Value) -> Value:
    """Return a value with Python numbers for its tensors, where torch can read them.

    Under ``vmap`` it cannot.
    """
    if isinstance(value, tuple | list):
        return tuple(map(_number, value))
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        return value
    try:
        return value.item()
    except RuntimeError:
        if not is_transforming():
            raise
        return value


def _with_rate(
    found: learning_rate.Rate, names: tuple[str, ...], value: Rate, step: int
) -> learning_rate.Rate:
    """Return the learning rates of a step with another one."""
    if names:
        return {**found, names[0]: _with_rate(found[names[0]], names[1:], value, step)}
    if not callable(value):
        return value
    name, rate = f"lr of step {step}", value(step)
    rate = _wide(name, rate, rate.dtype) if isinstance(rate, Tensor) else rate
    not_negative.check(f"hyperparameter {name!r}", _number(rate))
    return rate


class Attached(TorchFunctionMode):
    """Within it ``detach`` keeps the graph.

    An optimizer detaches the parameters that its first state is made of, for they may be those of a
    module. As a function of initial values, that state depends on them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor itself instead of a detached one."""
        return args[0] if func is Tensor.detach else func(*args, **(kwargs or {}))
