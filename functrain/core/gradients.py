"""Gradients of one batch, by ``torch.autograd``.

It supports activation checkpointing and backward hooks, and is faster than ``torch.func``. Below
transformations of ``torch.func``, other functions of the same signature take the gradients.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Sequence
from itertools import repeat
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward

from functrain.core.batch import Batch
from functrain.core.loss import Outcome
from functrain.core.model import FunctionalModule
from functrain.core.optimizer import PlainGradients, StepLayouts
from functrain.core.state import Tensors
from functrain.errors import LossError, ModelError, UnsupportedError

# Messages of torch about grad and backward, about hooks, and about retain_grad.
_WITHOUT_GRADIENTS = ("does not require grad", "doesn't require gradient", "requires_grad=False")

_TENSOR = frozenset({Tensor})
_LAYOUT, _GRAD = operator.attrgetter("layout"), operator.attrgetter("grad")

_REENTRANT = (
    "the model uses torch.utils.checkpoint with use_reentrant=True, which cannot give gradients "
    "as values (it writes them into .grad). Pass use_reentrant=False: the same memory is saved, "
    "and torch recommends it."
)

Forward = Callable[[nn.Module, Batch], Outcome]
# Called with (weight of the micro-batch, path, gradient) as soon as there is a gradient.
GradientSink = Callable[[Tensor, str, Tensor], None]


class Gradients(NamedTuple):
    """The gradients of one batch.

    Attributes:
        grads: gradient by path; a parameter the loss does not depend on has none. Empty where
            they were handed to a ``sink``.
        buffers: buffers after the forward.
        outcome: loss value (detached), weight, metrics.
    """

    grads: Tensors
    buffers: Tensors
    outcome: Outcome


class GradientsInPiecesError(Exception):
    """A sink was given a gradient piece by piece, so the sums it made depend on their number.

    A backward pass within the backward pass does this, as that of reversible layers. The step
    takes its gradients again; the model then hands each over when the pass is complete.
    """


class GradientFunction(Protocol):
    """Gradients of ``forward`` with respect to the trainable parameters, for one batch.

    Args:
        model: the shell.
        forward: (module, batch) -> outcome.
        trainable: paths to differentiate.
        params: all parameters; one that the forward gave other values by assignment is replaced.
        buffers: buffers that the forward may write to.
        batch: one batch on the device.
        scale: factor on the loss before the backward pass, or ``None``.
        sink: called with each gradient as soon as there is one, so that those of two micro-batches
            need not be in memory together; none is returned then.

    Returns:
        Gradients (of the scaled loss), buffers after the forward, outcome.
    """

    def __call__(
        self,
        model: FunctionalModule,
        forward: Forward,
        trainable: list[str],
        params: Tensors,
        buffers: Tensors,
        batch: Batch,
        scale: Tensor | None,
        sink: GradientSink | None = None,
    ) -> Gradients: ...


class GradientTransform(Protocol):
    """A change to how gradients are taken, such as that of ``sharpness_aware``."""

    def around(self, gradient: GradientFunction) -> GradientFunction:
        """Return a gradient function that calls ``gradient``."""
        ...


def by_autograd(
    model: FunctionalModule,
    forward: Forward,
    trainable: list[str],
    params: Tensors,
    buffers: Tensors,
    batch: Batch,
    scale: Tensor | None,
    sink: GradientSink | None = None,
) -> Gradients:
    """Gradients by ``torch.autograd``; see :class:`GradientFunction`.

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
            return by_autograd(model, forward, trainable, params, buffers, batch, scale, sink)
    leaves = {path: params[path].detach().requires_grad_() for path in trainable}
    for path, hooks in model.hooks.items():
        for hook in hooks if path in leaves else ():
            leaves[path].register_hook(hook)  # type: ignore[no-untyped-call]
    bound = model.writes.bound(params, leaves)
    with model.bound(bound, buffers, training=True) as module:
        outcome = forward(module, batch)
        require_graph(outcome.value, trainable)
        loss = outcome.value if scale is None else outcome.value * scale
        if sink is None or model.in_pieces:
            grads = _differentiated(loss, leaves, model.layouts)
        else:
            grads = {}
            hand_over = functools.partial(sink, outcome.weight_of(batch))
            model.in_pieces.update(_emit_gradients(loss, leaves, hand_over))
            if model.in_pieces:
                raise GradientsInPiecesError
        after = model.current_buffers()
        model.writes.adopt(params, bound, model.current_params())
    # A copy: the loss may be a parameter itself, which a donated step writes over.
    value = outcome.value.detach().clone()
    found = Gradients(grads, after, Outcome(value, outcome.weight, outcome.metrics))
    return found if sink is None or not grads else emit(found, batch, sink)


def emit(found: Gradients, batch: Batch, sink: GradientSink) -> Gradients:
    """Hand gradients that are already complete to a ``sink``."""
    weight = found.outcome.weight_of(batch)
    for path, grad in found.grads.items():
        sink(weight, path, grad)
    return found._replace(grads={})


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


def _differentiated(loss: Tensor, leaves: Tensors, layouts: StepLayouts) -> Tensors:
    graph = loss.grad_fn
    # torch.autograd.grad(loss, leaves, allow_unused=True), but its checks of every argument, which
    # take a twentieth of a small step.
    try:
        found = _engine_run_backward(
            (loss,),
            (torch.ones_like(loss),),
            False,  # retain_graph
            False,  # create_graph
            tuple(leaves.values()),
            allow_unreachable=True,
            accumulate_grad=False,
        )
    except RuntimeError as error:
        _refuse_reentrant(error)
        _refuse_frozen(error, leaves)
        raise
    if _are_plain(found, leaves.values(), layouts):  # nearly always, and asked in few calls
        return PlainGradients(leaves, found, layouts.updated)
    if any(grad is None for grad in found) and has_reentrant_checkpoint(graph):
        raise ModelError(_REENTRANT)
    grads = {}
    for (path, leaf), grad in zip(leaves.items(), found, strict=True):
        # A backward pass within the forward or the backward writes here, as that of reversible
        # layers (Reformer) does; the plain loop would find both in one place.
        if leaf.grad is not None:
            grad = leaf.grad if grad is None else grad + leaf.grad
        if grad is not None:
            grads[path] = _accumulated(path, grad, leaf)
    return grads


def _are_plain(
    grads: Sequence[Tensor | None], leaves: Collection[Tensor], layouts: StepLayouts
) -> bool:
    """Return whether the gradients are as ``backward`` would leave them in ``.grad``."""

    def are_contiguous() -> bool:
        return (
            _TENSOR.issuperset(map(type, grads))
            and all(map(operator.is_, map(_LAYOUT, grads), repeat(torch.strided)))
            and all(map(Tensor.is_contiguous, grads))  # type: ignore[arg-type]
            and all(map(Tensor.is_contiguous, leaves))
        )

    return layouts.gradients.passes((*grads, *leaves), are_contiguous) and all(
        map(operator.is_, map(_GRAD, leaves), repeat(None))
    )


def _emit_gradients(loss: Tensor, leaves: Tensors, sink: Callable[[str, Tensor], None]) -> set[str]:
    """Call the sink with each gradient as soon as the backward pass has it.

    Returns:
        The paths of gradients that arrived in several pieces.
    """
    graph, handed, repeated = loss.grad_fn, set[str](), set[str]()

    def hand_over(path: str, leaf: Tensor) -> None:
        grad, leaf.grad = leaf.grad, None
        assert grad is not None
        sink(path, _accumulated(path, grad, leaf))
        (repeated if path in handed else handed).add(path)

    try:
        for path, leaf in leaves.items():
            hook = functools.partial(hand_over, path)
            leaf.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        torch.autograd.backward(loss, inputs=list(leaves.values()))
    except RuntimeError as error:
        _refuse_reentrant(error)
        _refuse_frozen(error, leaves)
        raise
    if len(handed) < len(leaves) and has_reentrant_checkpoint(graph):
        raise ModelError(_REENTRANT)
    return repeated


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
