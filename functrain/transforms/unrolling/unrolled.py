"""Many steps as one differentiable function, with or without keeping their graph."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.batch_lending import copied
from functrain.core.first_step import require_state
from functrain.core.loss import Metrics
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, UnsupportedError
from functrain.errors.validators import is_integer
from functrain.transforms.graph.inputs import builder, flatten
from functrain.transforms.steps import series, stacked
from functrain.transforms.torch_internals import is_transforming
from functrain.transforms.unrolling.program import Differentiable


def unrolled(
    program: Program,
    state: TrainState,
    batches: Iterable[Batch],
    *,
    recompute: int | None = None,
) -> tuple[TrainState, Metrics]:
    """Make a step for each of several batches, as a differentiable function.

    Args:
        program: of :func:`functrain.differentiable`.
        state: where training stands; not changed. Its tensors may have a graph.
        batches: one for each step, as ``train_step`` takes them.
        recompute: keep the graph of no more than so many steps at a time: states in between are
            kept with copies of the batches, and steps are computed again in the backward pass. It
            takes less memory, about a third more time, and its gradients have no gradients
            themselves.

    Returns:
        (last state, metrics). Each metric has one value a step; those of ``loss`` and ``grad_norm``
        keep their graph.

    Raises:
        ConfigurationError: the program is not differentiable, or ``batches`` is one batch.
        UnsupportedError: ``recompute`` was given under ``torch.func`` or in forward mode.
        NonFiniteError: as ``train_step``.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: (model(batch) - 1).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1, momentum=0.9))
        >>> momentum = torch.tensor(0.9, requires_grad=True)
        >>> program = ft.differentiable(program, {"momentum": momentum})
        >>> state, metrics = ft.unrolled(program, program.init(), [torch.ones(4, 2)] * 4)
        >>> metrics["loss"].sum().backward()
        >>> momentum.grad is not None, metrics["loss"].shape
        (True, torch.Size([4]))
    """
    if not isinstance(program, Differentiable):
        raise ConfigurationError(
            "program: expected one of functrain.differentiable(program, {...}), got a "
            f"{type(program).__name__}"
        )
    require_state(state, batches)
    given = iter(series(batches))
    if recompute is None:
        return _in_turn(program, given, state)
    if not is_integer(recompute, 1):
        raise ConfigurationError(f"recompute: expected a number of steps, got {recompute!r}")
    if is_transforming():
        raise UnsupportedError(
            "recompute: torch.func and forward mode keep no graph that it could shorten; leave it "
            "out"
        )
    rows: list[Metrics] = []
    # The caller may change a batch before its step is computed again.
    own = (copied(batch, None) for batch in given)
    while part := list(itertools.islice(own, recompute)):
        state, metrics = recomputed(functools.partial(_in_turn, program, part), state)
        rows += [{name: one[at] for name, one in metrics.items()} for at in range(len(part))]
    return state, stacked(rows, state.device)


def _in_turn(
    program: Differentiable, batches: Iterable[Batch], state: TrainState
) -> tuple[TrainState, Metrics]:
    rows = []
    for batch in batches:
        state, metrics = program.train_step(state, batch)
        rows.append(metrics)
    return state, stacked(rows, state.device)


Function = Callable[[TrainState], tuple[TrainState, Metrics]]
# Of tensors that are leaves of a graph to the results, which are others at each call.
Flat = Callable[[Sequence[Tensor]], list[Tensor]]

_PARTS = ("params", "buffers", "optimizer", "ema")


def recomputed(function: Function, state: TrainState) -> tuple[TrainState, Metrics]:
    """Call a function of a state, and call it again for the gradients of its results.

    The function is pure, but may depend on other tensors too.
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
