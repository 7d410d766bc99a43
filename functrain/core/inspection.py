"""Inspect a step from a state without making it."""

from __future__ import annotations

from functrain.core.accumulation import step_gradients
from functrain.core.batch import Batch, split
from functrain.core.diagnosis import refuse_members
from functrain.core.gradients import by_autograd
from functrain.core.program import Program
from functrain.core.rng import scoped
from functrain.core.state import Tensors, TrainState


def gradients(program: Program, state: TrainState, batch: Batch) -> Tensors:
    """Return the gradients that a step from a state would use, before clipping.

    They are taken in the random stream of that step, so dropout draws what it would draw there,
    and averaged over micro-batches as there. A compiled program's own differ by rounding.

    Args:
        program: whose loss, precision and micro-batches count. All ranks of a sharded one call
            this together.
        state: where training stands; not changed.
        batch: what ``train_step`` would be given; not changed.

    Returns:
        Gradient by path, for the trainable parameters that the loss depends on; unscaled where
        the precision is ``"fp16"``. Empty for a batch without samples, which makes no step.

    Raises:
        LossError: the loss is no scalar or does not depend on a trainable parameter.
        UnsupportedError: the state is of a population.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, x: model(x).sum()
        >>> program = ft.program(torch.nn.Linear(2, 1, bias=False), loss, ft.optim.SGD(lr=0.1))
        >>> gradients(program, program.init(), torch.tensor([[3.0, 4.0]]))
        {'weight': tensor([[3., 4.]])}
    """
    refuse_members(state)
    tensors = {
        "params": state.params,
        "buffers": state.buffers,
        "loss_scale": state.loss_scale,
    }
    stream = state.rng.stream("step", state.counters.step)
    if program.sharded is not None:
        program.sharded.refuse_unplaced(state)
        shared = program.sharded.shared(batch, program.recipe.accumulate)
        return program.sharded.all_gradients(tensors, shared, stream)[0] if shared.samples else {}
    parts = split(batch, program.recipe.accumulate).parts
    if not parts:
        return {}
    with scoped(stream, state.device):
        found = step_gradients(by_autograd, program.fixed, tensors, parts, seed=stream)
    return dict(found.grads)
