"""Gradients of one batch, by ``torch.autograd``.

It supports activation checkpointing and backward hooks, and is faster than ``torch.func``. Below
transformations of ``torch.func``, other functions of the same signature take the gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from functrain.core.backward import differentiated, emitted
from functrain.core.batch import Batch
from functrain.core.loss import Outcome
from functrain.core.model import FunctionalModule
from functrain.core.state import Tensors
from functrain.errors import LossError, UnsupportedError

# Messages of torch about grad and backward, about hooks, and about retain_grad.
_WITHOUT_GRADIENTS = ("does not require grad", "doesn't require gradient", "requires_grad=False")

Forward = Callable[[nn.Module, Batch], Outcome]
# Called with (weight of the micro-batch, path, gradient) as soon as there is a gradient.
GradientSink = Callable[[Tensor, str, Tensor], None]


class Gradients(NamedTuple):
    """The gradients of one batch.

    Attributes:
        grads: gradient by path; a parameter the loss does not depend on has none. Empty where
            they were handed to a ``sink``.
    """

    grads: Tensors
    buffers: Tensors
    outcome: Outcome


class GradientsInPiecesError(Exception):
    """A sink was given a gradient piece by piece, so the sums it made depend on their number.

    A backward pass within the backward pass does this, as that of reversible layers. The step
    takes its gradients again; the model then hands each over when the pass is complete.
    """


class Request(NamedTuple):
    """Ask for the gradients of ``forward`` with respect to the trainable parameters, for one batch.

    Attributes:
        forward: (module, batch) -> outcome.
        params: all parameters; one that the forward gave other values by assignment is replaced.
        scale: factor on the loss before the backward pass, or ``None``; gradients keep it.
        sink: may be called with each gradient as soon as there is one, so that those of two
            micro-batches need not be in memory together; none is returned then.
    """

    model: FunctionalModule
    forward: Forward
    trainable: list[str]
    params: Tensors
    buffers: Tensors
    batch: Batch
    scale: Tensor | None
    sink: GradientSink | None = None

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
        GradientsInPiecesError: the sink was given a gradient in pieces, for the first time.
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
    model, params, sink = given.model, given.params, given.sink
    leaves = _leaves(model, params, given.trainable)
    bound = model.writes.bound(params, leaves)
    with model.bound(bound, given.buffers, training=True) as module:
        outcome = given.forward(module, given.batch)
        require_graph(outcome.value, given.trainable)
        loss = given.scaled(outcome.value)
        if sink is None or model.in_pieces:
            grads = differentiated(loss, leaves, model.layouts)
        else:
            grads = {}
            hand_over = functools.partial(sink, outcome.weight_of(given.batch))
            model.in_pieces.update(emitted(loss, leaves, hand_over))
            if model.in_pieces:
                raise GradientsInPiecesError
        after = model.current_buffers()
        model.writes.adopt(params, bound, model.current_params())
    if not model.outside.searched:
        model.outside.warn_of(outcome.value)
    # A copy: the loss may be a parameter itself, which a donated step writes over.
    value = outcome.value.detach().clone()
    return Gradients(grads, after, Outcome(value, outcome.weight, outcome.metrics))


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
