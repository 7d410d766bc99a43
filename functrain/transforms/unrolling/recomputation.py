"""Steps that are computed again for their gradients, so that their graph need not be kept.

``torch.utils.checkpoint`` keeps tensors by hooks, which the gradients inside a step would set off.
A step is a pure function: the state before it is enough to compute it again, dropout included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.program import Metrics
from functrain.core.state import TrainState
from functrain.errors import UnsupportedError
from functrain.transforms.graph.inputs import builder, flatten

Function = Callable[[TrainState], tuple[TrainState, Metrics]]
# Of tensors that are leaves of a graph to the results, which are others at each call.
Flat = Callable[[Sequence[Tensor]], list[Tensor]]

_PARTS = ("params", "buffers", "optimizer", "ema")


def recomputed(function: Function, state: TrainState) -> tuple[TrainState, Metrics]:
    """Call a function of a state, and call it again for the gradients of its results.

    Args:
        function: pure; it may depend on other tensors too.
        state: its argument.
    """
    build, given = builder(_parts(state)), flatten(_parts(state))
    made: list[tuple[TrainState, Metrics]] = []

    def flat(leaves: Sequence[Tensor]) -> list[Tensor]:
        made[:] = [function(attrs.evolve(state, **build(iter(leaves))))]
        after, metrics = made[0]
        return [*flatten(_parts(after)), *metrics.values()]

    with torch.enable_grad():
        leaves = list(map(_leaf, given))
        results = flat(leaves)
    (after, metrics), made[:] = made[0], []
    others = _other_leaves(results, leaves)
    call: Any = _Recomputed.apply
    kept = iter(call(flat, list(map(_value, results)), len(given), *given, *others))
    last = attrs.evolve(after, **builder(_parts(after))(kept))
    return last, dict(zip(metrics, kept, strict=True))


class _Recomputed(torch.autograd.Function):
    """Keeps the inputs of a function, and calls it again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, flat: Flat, results: Any, count: int, *tensors: Tensor) -> Any:
        ctx.flat, ctx.count = flat, count
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        values = [value for value, _ in results]
        ctx.mark_non_differentiable(*[value for value, depends in results if not depends])
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if torch.is_grad_enabled():  # which create_graph=True does
            raise UnsupportedError(
                "recompute: gradients of recomputed steps have no gradients themselves; leave it "
                "out where create_graph=True is needed"
            )
        # Of tensors that were written to since, torch says so here.
        given, others = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        with torch.enable_grad():
            leaves = list(map(_leaf, given))
            results = ctx.flat(leaves)
        inputs = [*(leaf for leaf in leaves if leaf.requires_grad), *others]
        pairs = [(one, grad) for one, grad in zip(results, grads, strict=True) if grad is not None]
        found = iter(
            torch.autograd.grad(
                [one for one, _ in pairs],
                inputs,
                [grad for _, grad in pairs],
                allow_unused=True,
                retain_graph=True,  # other parts may depend on the same graph of the other tensors
            )
        )
        own = [next(found) if leaf.requires_grad else None for leaf in leaves]
        return None, None, None, *own, *found


def _parts(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _PARTS}


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.is_floating_point() or tensor.is_complex())


def _value(result: Tensor) -> tuple[Tensor, bool]:
    return result.detach(), result.requires_grad


def _other_leaves(results: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """Return the tensors that results depend on, without the leaves that are known.

    These are hyperparameters, weights of data, and tensors that the loss has from elsewhere.
    """
    known = {id(leaf) for leaf in leaves}
    found: dict[int, Tensor] = {}
    waiting = [one.grad_fn for one in results if one.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)  # of a node that accumulates into a leaf
        if leaf is not None and id(leaf) not in known:
            found[id(leaf)] = leaf
        following = {one for one, _ in node.next_functions if one is not None} - seen
        seen |= following
        waiting += following
    return list(found.values())
