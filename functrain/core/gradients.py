"""Gradients of one batch, by ``torch.autograd``.

It supports activation checkpointing and backward hooks, and is faster than ``torch.func``. Below
transformations of ``torch.func``, other functions of the same signature take the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from functrain.core.batch import Batch
from functrain.core.loss import LossOutput
from functrain.core.model import FunctionalModule
from functrain.core.state import Tensors
from functrain.errors import LossError, ModelError, UnsupportedError

# Messages of torch about grad and backward, about hooks, and about retain_grad.
_WITHOUT_GRADIENTS = ("does not require grad", "doesn't require gradient", "requires_grad=False")

Forward = Callable[[nn.Module, Batch], LossOutput]

_REENTRANT = (
    "the model uses torch.utils.checkpoint with use_reentrant=True, which cannot give gradients "
    "as values (it writes them into .grad). Pass use_reentrant=False: the same memory is saved, "
    "and torch recommends it."
)


class Gradients(NamedTuple):
    """The gradients of one batch.

    Attributes:
        grads: gradient by path; a parameter the loss does not depend on has none.
    """

    grads: Tensors
    buffers: Tensors
    loss_output: LossOutput


class Request(NamedTuple):
    """Ask for the gradients of ``forward`` with respect to the trainable parameters, for one batch.

    Attributes:
        forward: (module, batch) -> loss_output.
        params: all parameters; one that the forward gave other values by assignment is replaced.
        scale: factor on the loss before the backward pass, or ``None``; gradients keep it.
    """

    model: FunctionalModule
    forward: Forward
    trainable: list[str]
    params: Tensors
    buffers: Tensors
    batch: Batch
    scale: Tensor | None

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss as it is differentiated."""
        return loss if self.scale is None else loss * self.scale


GradientFunction: TypeAlias = Callable[[Request], Gradients]


class GradientTransform(Protocol):
    """A change to how gradients are taken, such as that of ``sharpness_aware``."""

    def around(self, gradient: GradientFunction) -> GradientFunction:
        """Return a gradient function that calls ``gradient``."""
        ...


def by_autograd(given: Request) -> Gradients:
    """Return the gradients by ``torch.autograd``.

    Raises:
        UnsupportedError: torch is in inference mode.
    """
    if not torch.is_grad_enabled():
        if torch.is_inference_mode_enabled():
            raise UnsupportedError(
                "train_step was called in torch.inference_mode(), where torch makes no gradients: "
                "leave it out; torch.no_grad() may stay"
            )
        with torch.enable_grad():
            return by_autograd(given)
    model, params = given.model, given.params
    leaves = _leaves(model, params, given.trainable)
    bound = model.writes.bound(params, leaves)
    with model.bound(bound, given.buffers, training=True) as module:
        loss_output = given.forward(module, given.batch)
        require_graph(loss_output.value, given.trainable)
        early = _take_early(leaves, given.scale)
        grads = differentiated(given.scaled(loss_output.value), leaves, early)
        after = model.current_buffers(given.buffers)
        model.writes.adopt(params, bound, model.current_params())
    if not model.outside.searched:
        model.outside.warn_of(loss_output.value)
    # A copy: the loss may be a parameter itself, which a donated step writes over.
    value = loss_output.value.detach().clone()
    return Gradients(grads, after, LossOutput(value, loss_output.weight, loss_output.metrics))


def _leaves(model: FunctionalModule, params: Tensors, trainable: list[str]) -> Tensors:
    """Return aliases of the trained parameters, with the hooks that the user registered on them."""
    leaves = {path: params[path].detach().requires_grad_() for path in trainable}
    for path, hooks in model.hooks.items():
        for hook in hooks if path in leaves else ():
            leaves[path].register_hook(hook)  # type: ignore[no-untyped-call]
    return leaves


def needs_gradients(error: RuntimeError) -> bool:
    """Whether code failed because it differentiates, and nothing it computed could be.

    Example:
        >>> try:
        ...     torch.ones(()).backward()
        ... except RuntimeError as error:
        ...     needs_gradients(error)
        True
    """
    return any(words in str(error) for words in _WITHOUT_GRADIENTS)


def require_graph(loss: Tensor, trainable: list[str]) -> None:
    """Refuse a loss without a gradient."""
    if not trainable:
        raise LossError("no parameter is trainable: all are frozen, so there is nothing to train")
    if not loss.requires_grad:
        raise LossError(
            "the loss does not depend on any trainable parameter. Compute it from the model that "
            "is passed to loss(model, batch), without .detach(), .item() or torch.no_grad()."
        )


def _take_early(leaves: Tensors, scale: Tensor | None) -> Tensors:
    """Return the gradients that a ``backward()`` within the loss left, and take them away."""
    found = {path: leaf.grad for path, leaf in leaves.items() if leaf.grad is not None}
    for path in found:
        leaves[path].grad = None
    return found if scale is None else {path: grad * scale for path, grad in found.items()}


def differentiated(loss: Tensor, leaves: Tensors, early: Tensors) -> Tensors:
    """Return the gradients of a loss by path, added to ``early`` ones; some may have none."""
    graph = loss.grad_fn
    try:
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    except RuntimeError as error:
        _refuse_reentrant(error)
        _refuse_frozen(error, leaves)
        raise
    if any(grad is None for grad in found) and has_reentrant_checkpoint(graph):
        raise ModelError(_REENTRANT)
    grads = {}
    for (path, leaf), grad in zip(leaves.items(), found, strict=True):
        # A backward pass within the backward, as of reversible layers (Reformer), writes here.
        for other in (early.get(path), leaf.grad):
            if other is not None:
                grad = other if grad is None else grad + other
        if grad is not None:
            grads[path] = _accumulated(path, grad, leaf)
    return grads


def _refuse_frozen(error: RuntimeError, leaves: Tensors) -> None:
    """Explain a forward that freezes trained parameters, which torch then cannot differentiate."""
    frozen = [path for path, leaf in leaves.items() if not leaf.requires_grad]
    if frozen:
        raise ModelError(
            "the forward or the loss switched requires_grad off on trained parameters: "
            f"{frozen[:4]}. Choose what is trained by functrain.program(..., trainable=...), by "
            "functrain.optim.Frozen in groups, or from some step on by functrain.phases; to leave "
            "parameters out of one loss, give it parameter.detach()"
        ) from error


def _refuse_reentrant(error: RuntimeError) -> None:
    """Explain reentrant checkpointing, the one construct that would lose gradients.

    It finds its gradients by a backward pass of its own, which writes into ``.grad``. A pass that
    returns gradients makes it raise; or, where nothing trained lies before it, silently skips it.
    """
    if "use_reentrant" in str(error):
        raise ModelError(_REENTRANT) from error


def has_reentrant_checkpoint(graph: Any) -> bool:
    """Return whether a graph has reentrant checkpointing in it."""
    seen, waiting = set(), [graph]
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
        raise UnsupportedError(
            f"parameter {path!r} received a gradient of layout {grad.layout}; functrain's steps "
            "take dense gradients only. Make the layer with sparse=False."
        )
    if (grad.is_contiguous() and leaf.is_contiguous()) or grad.stride() == leaf.stride():
        return grad
    return torch.empty_like(leaf, requires_grad=False).copy_(grad)
