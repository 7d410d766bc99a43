"""Gradients of one batch, by ``torch.autograd``.

It supports activation checkpointing and backward hooks, and is faster than ``torch.func``. Below
transformations of ``torch.func``, other functions of the same signature take the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.loss import LossOutput, evaluate
from functrain.core.recipe import StaticParts
from functrain.core.state import Tensors


class Gradients(NamedTuple):
    """Gradients before clipping, and what the forward left behind.

    Attributes:
        grads: by path; a parameter the loss does not depend on has none.
        params: all parameters after the forward, which may write to some.
        norm: of all gradients, where it is not torch's.
    """

    grads: Tensors
    params: Tensors
    buffers: Tensors
    loss_output: LossOutput
    norm: Tensor | None = None


class GradientInputs(NamedTuple):
    """The values that the gradients of one batch depend on.

    Attributes:
        params: all parameters; one that the forward gave other values by assignment is replaced.
        buffers: copies, to which the forward may write.
        batch: the loss may write to it, too.
        scale: factor on the loss before the backward pass, or ``None``; gradients keep it.
    """

    fixed: StaticParts
    params: Tensors
    buffers: Tensors
    batch: Batch
    scale: Tensor | None
    device: torch.device


GradientFunction: TypeAlias = Callable[[GradientInputs], Gradients]


def inputs_of(fixed: StaticParts, state: dict[str, Any], batch: Batch) -> GradientInputs:
    """Return what the gradients of a batch in a state depend on; the state will not be changed."""
    params = state["params"]
    device = next(iter(params.values())).device
    # The forward writes into the buffers it is given (BatchNorm does so unseen by autograd).
    own = {path: buffer.clone() for path, buffer in state["buffers"].items()}
    return GradientInputs(fixed, params, own, batch, scale_of(state), device)


def scale_of(state: dict[str, Any]) -> Tensor | None:
    """Return fp16's factor on the loss."""
    return None if state["loss_scale"] is None else state["loss_scale"]["scale"]


def scaled(value: Tensor, scale: Tensor | None) -> Tensor:
    """Return a loss, or what its gradients are divided by, times fp16's factor."""
    return value if scale is None else value * scale


def by_autograd(inputs: GradientInputs) -> Gradients:
    """Return the gradients by ``torch.autograd``."""
    if not torch.is_grad_enabled():
        with torch.enable_grad():
            return by_autograd(inputs)
    fixed, params, buffers, batch, scale, device = inputs
    model, recipe = fixed.model, fixed.recipe
    bound = model.as_parameters(params, fixed.trainable)
    leaves = {path: bound[path] for path in fixed.trainable}
    for path, hooks in model.hooks.items():
        for hook in hooks if path in leaves else ():
            leaves[path].register_hook(hook)  # type: ignore[no-untyped-call]
    with model.bound(bound, buffers, training=True) as module:
        loss_output = evaluate(recipe.loss, module, batch, device, recipe.precision)
        loss = loss_output.value
        require_dependence(loss.requires_grad)
        grads = _differentiated(loss, leaves, scale)
        after = model.current_buffers(buffers)
        model.writes.adopt(params, bound, model.current_params())
    if not model.outside.searched:
        model.outside.warn_of(loss, bound)
    # A copy: the loss may be a parameter itself, which a donated step writes over.
    return Gradients(grads, params, after, loss_output._replace(value=loss.detach().clone()))


def require_dependence(depends: object) -> None:
    """Refuse a loss that depends on no trainable parameter, so that it has no gradients."""
    if not depends:
        from functrain.diagnosis.backward_errors import explain_independence

        raise explain_independence()


def _differentiated(loss: Tensor, leaves: Tensors, scale: Tensor | None) -> Tensors:
    """Return the gradients of a loss by path; some may have none."""
    if scale is not None:
        for leaf in leaves.values():
            if leaf.grad is not None:  # from a ``backward()`` within the loss
                leaf.grad = leaf.grad * scale
    try:
        found = torch.autograd.grad(scaled(loss, scale), list(leaves.values()), allow_unused=True)
    except RuntimeError as error:
        from functrain.diagnosis.backward_errors import explain_backward

        explain_backward(error, leaves)
        raise
    grads = {}
    for (path, leaf), grad in zip(leaves.items(), found, strict=True):
        # A backward pass within the backward, as of reversible layers (Reformer), writes here.
        if (other := leaf.grad) is not None:
            grad = other if grad is None else grad + other
        if grad is not None:
            grads[path] = _accumulated(path, grad, leaf)
    if len(grads) < len(leaves) and has_reentrant_checkpoint(loss):
        from functrain.diagnosis.backward_errors import explain_reentrant

        raise explain_reentrant()
    return grads


def has_reentrant_checkpoint(loss: Tensor) -> bool:
    """Return whether the graph of a loss has reentrant checkpointing in it.

    Its backward pass skips parameters silently, if nothing trained lies before the checkpoint.
    """
    seen, waiting = set[Any](), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def _accumulated(path: str, grad: Tensor, leaf: Tensor) -> Tensor:
    """Return a gradient as ``backward`` would leave it in ``.grad``: with its parameter's strides.

    The order of its elements is that in which a norm adds them up (torch's "gradient layout
    contract"; transposed convolutions and permuted inputs give other strides).
    """
    if grad.layout is not torch.strided:
        from functrain.diagnosis.backward_errors import explain_layout

        raise explain_layout(path, grad)
    if (grad.is_contiguous() and leaf.is_contiguous()) or grad.stride() == leaf.stride():
        return grad
    return torch.empty_like(leaf, requires_grad=False).copy_(grad)
