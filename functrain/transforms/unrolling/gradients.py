"""Gradients of one batch that have gradients themselves.

``by_autograd`` cuts the graph at the parameters of each step. Here it goes on through them, so a
result after many steps depends on initial values, data and hyperparameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from functrain.core.accumulation import step_gradients
from functrain.core.batch import Batch
from functrain.core.clipping import global_norm
from functrain.core.gradients import (
    GradientInputs,
    Gradients,
    has_reentrant_checkpoint,
    require_dependence,
    scaled,
)
from functrain.core.loss import LossOutput, evaluate
from functrain.core.model import FunctionalModule
from functrain.core.recipe import StaticParts
from functrain.core.state import Tensors
from functrain.errors import UnsupportedError
from functrain.transforms.graph.inputs import flatten
from functrain.transforms.torch_internals import is_transforming
from functrain.transforms.unrolling.batch_norm import BatchNormByFormula

_CHECKPOINTED = (
    "the model uses activation checkpointing (or other hooks of saved tensors), which cannot be "
    "differentiated twice. Leave it out, and save memory by unrolled(..., recompute=1)"
)


def differentiable_gradients(
    fixed: StaticParts, state: dict[str, Any], batches: list[Batch], seed: int | None
) -> Gradients:
    """Return the gradients of a step with their graph; see ``step_gradients``."""
    watch = not is_transforming()
    found = step_gradients(by_graph, fixed, state, batches, seed, watch)
    for path in fixed.model.writes.paths:
        raise _written(path)
    if found.norm is None:
        return found
    # The norm of several parts is summed without a graph. Torch's has its derivative, and none at
    # zero, where that of a square root is infinite.
    other = global_norm(list(found.grads.values()), foreach=False)
    return found._replace(norm=found.norm.detach() + (other - other.detach()))


def by_graph(inputs: GradientInputs) -> Gradients:
    """Return the gradients by ``torch.autograd``, as functions of all that the forward depends on.

    Under ``torch.func`` and in forward mode they are those of ``by_func``.
    """
    fixed, params, model = inputs.fixed, inputs.params, inputs.fixed.model
    if is_transforming():
        with differentiable_forward(model):
            buffers = _batched(inputs.buffers, params, inputs.batch)
            return by_func(inputs._replace(buffers=buffers))
    keeps_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = {path: _leaf(params[path]) for path in fixed.trainable}
        bound = {**params, **leaves}
        with model.bound(bound, inputs.buffers, training=True) as module:
            with differentiable_forward(model):
                loss_output = _evaluated(inputs, module, inputs.batch)
            after = model.held_buffers()
            now = model.current_params()
        for path in bound:
            if now[path] is not bound[path]:
                raise _written(path)
        require_dependence(loss_output.value.requires_grad)
        grads = _differentiated(loss_output.value, leaves, keeps_graph)
    if not keeps_graph:
        weight = (
            loss_output.weight.detach()
            if isinstance(loss_output.weight, Tensor)
            else loss_output.weight
        )
        loss_output = loss_output._replace(value=loss_output.value.detach(), weight=weight)
        after = {path: buffer.detach() for path, buffer in after.items()}
    return Gradients(grads, params, after, loss_output)


def _evaluated(inputs: GradientInputs, module: nn.Module, batch: Batch) -> LossOutput:
    """Evaluate the loss; the mean over micro-batches is a function of their weights, too."""
    recipe = inputs.fixed.recipe
    return evaluate(recipe.loss, module, batch, inputs.device, recipe.precision, weight_graph=True)


def by_func(inputs: GradientInputs) -> Gradients:
    """Return the gradients by ``torch.func``; a trainable parameter without one has zeros."""
    model, params = inputs.fixed.model, inputs.params
    leaves = {path: params[path] for path in inputs.fixed.trainable}
    frozen = {path: tensor for path, tensor in params.items() if path not in leaves}

    # Buffers are an argument, not captured: torch.func refuses to write to what is captured.
    def scaled_loss(
        leaves: Tensors, frozen: Tensors, buffers: Tensors, batch: Batch
    ) -> tuple[Tensor, tuple[LossOutput, Tensors]]:
        with model.bound({**frozen, **leaves}, buffers, training=True) as module:
            loss_output = _evaluated(inputs, module, batch)
            after = model.held_buffers()
        # torch.func returns tensors only: an empty list stands for a weight that is taken from the
        # batch later.
        weight = [] if loss_output.weight is None else [loss_output.weight_of(batch)]
        return scaled(loss_output.value, inputs.scale), (loss_output._replace(weight=weight), after)  # type: ignore[arg-type]

    differentiated = torch.func.grad_and_value(scaled_loss, has_aux=True)
    grads, (_, (loss_output, after)) = differentiated(leaves, frozen, inputs.buffers, inputs.batch)
    loss_output = loss_output._replace(weight=next(iter(loss_output.weight), None))
    return Gradients(grads, params, after, loss_output)


def _leaf(param: Tensor) -> Tensor:
    """Return a parameter for one step, which no other use of its tensor is part of."""
    return param.view_as(param) if param.requires_grad else param.detach().requires_grad_()


def _differentiated(loss: Tensor, leaves: Tensors, keeps_graph: bool) -> Tensors:
    given = list(leaves.values())
    if has_reentrant_checkpoint(loss):
        raise UnsupportedError(_CHECKPOINTED)
    found = torch.autograd.grad(loss, given, create_graph=keeps_graph, allow_unused=True)
    if written := [path for path, leaf in leaves.items() if leaf.is_leaf and leaf.grad is not None]:
        raise UnsupportedError(
            f"the model writes gradients into .grad (of {written[0]!r}) during its own backward "
            "pass, as reversible layers do: such gradients have no gradients themselves"
        )
    return {path: grad for path, grad in zip(leaves, found, strict=True) if grad is not None}


@contextlib.contextmanager
def differentiable_forward(model: FunctionalModule) -> Iterator[None]:
    """Choose kernels that can be differentiated twice, for a forward pass.

    Raises:
        UnsupportedError: the model uses activation checkpointing, whose second forward would run
            after the step, when the module has other tensors; or it registers a gradient hook.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autograd.graph.disable_saved_tensors_hooks(_CHECKPOINTED))
        stack.enter_context(RefuseTensorHooks())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(buffer.is_floating_point() for buffer in model.buffers.values()):
            stack.enter_context(BatchNormByFormula())
        if any(isinstance(one, nn.RNNBase) for one in model.module.modules()):
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        try:
            yield
        except RuntimeError as error:
            if _CHECKPOINTED in str(error):
                raise UnsupportedError(_CHECKPOINTED) from error
            raise


def _batched(buffers: Tensors, params: Tensors, batch: Batch) -> Tensors:
    """Return buffers with the axis that ``vmap`` maps, if parameters or batch have it.

    A forward writes statistics of batched activations into them, which must fit.
    """
    given = [*params.values(), *flatten(batch)]
    zeros = [torch.zeros_like(one.reshape(-1)[:1]).sum().double() for one in given]
    zero = torch.stack(zeros).sum()
    return {
        path: buffer + zero.to(buffer.dtype) if buffer.is_floating_point() else buffer
        for path, buffer in buffers.items()
    }


def _written(path: str) -> UnsupportedError:
    return UnsupportedError(
        f"the forward writes to parameter {path!r}, and a value that is written over has no "
        "gradient. Keep it in a buffer, or train with the plain program"
    )


class RefuseTensorHooks(TorchFunctionMode):
    """Within it no tensor takes a gradient hook.

    The backward pass through the steps would call it too, with gradients of another kind.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function unless it registers a hook."""
        if func is Tensor.register_hook:
            raise UnsupportedError(
                "the forward registers a gradient hook on a tensor, which differentiable training "
                "would call a second time in the backward pass through the step: leave it out, or "
                "train with the plain program"
            )
        return func(*args, **(kwargs or {}))
