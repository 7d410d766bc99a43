"""Many steps as one differentiable function."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

from functrain.core.batch import Batch, copied
from functrain.core.diagnosis import not_a_state
from functrain.core.program import Metrics, Program
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, UnsupportedError
from functrain.transforms.steps import series, stacked
from functrain.transforms.unrolling.program import Differentiable
from functrain.transforms.unrolling.recomputation import recomputed
from functrain.transforms.unrolling.torch_internals import is_transforming


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
    if not isinstance(state, TrainState):
        raise not_a_state(state, batches)
    given = iter(series(batches))
    if recompute is None:
        return _in_turn(program, given, state)
    if type(recompute) is not int or recompute < 1:
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
