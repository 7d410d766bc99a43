"""The backward pass: its gradients as values, or passed on one by one."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward

from functrain.core.optimizer import PlainGradients, StepLayouts
from functrain.core.state import Tensors
from functrain.errors import ModelError, UnsupportedError, UntrainedParameterWarning
from functrain.errors.base import warn

_TENSOR = frozenset({Tensor})
_LAYOUT, _GRAD = operator.attrgetter("layout"), operator.attrgetter("grad")

_REENTRANT = (
    "the model uses torch.utils.checkpoint with use_reentrant=True, which cannot give gradients "
    "as values (it writes them into .grad). Pass use_reentrant=False: the same memory is saved, "
    "and torch recommends it."
)


def differentiated(loss: Tensor, leaves: Tensors, layouts: StepLayouts) -> Tensors:
    """Return the gradients of a loss by path; a leaf that it does not depend on has none."""
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


def emitted(loss: Tensor, leaves: Tensors, sink: Callable[[str, Tensor], None]) -> set[str]:
    """Call the sink with each gradient as soon as the backward pass has it.

    Return the paths of gradients that arrived in several pieces.
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


class OutsideParameters:
    """Parameters outside of the model on which a loss depends, and which no step will train.

    A criterion with weights of its own (class centers, a temperature) is trained in a loop whose
    optimizer has them, too. A program trains those of its model, which are bound as tensors.

    Attributes:
        searched: whether a loss of the program was searched for them: its first one is.
    """

    def __init__(self) -> None:
        self.searched = False

    def warn_of(self, loss: Tensor) -> None:
        """Warn of trainable parameters in the graph of a loss."""
        self.searched = True
        shapes = [list(parameter.shape) for parameter in _parameters_below(loss)]
        if shapes:
            warn(
                f"the loss depends on {len(shapes)} trainable parameters outside of the model, of "
                f"the shapes {shapes[:8]}, which no step trains. To train them, make them a part "
                "of the model, as in ModuleDict({'net': net, 'criterion': criterion}); if they "
                "are constants, say so: module.requires_grad_(False)",
                UntrainedParameterWarning,
            )


def _parameters_below(loss: Tensor) -> list[nn.Parameter]:
    """Return the parameters in the graph of a loss, in an order that the graph alone decides."""
    pending, seen, found = [loss.grad_fn], {None, loss.grad_fn}, []
    while pending:
        node = pending.pop()
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            found.append(variable)
        for below, _ in getattr(node, "next_functions", ()):
            if below not in seen:
                seen.add(below)
                pending.append(below)
    return found
