"""Inspect a step from a state without making it."""

from __future__ import annotations

from functrain.core.batch import Batch
from functrain.core.first_step import refuse_members
from functrain.core.program import Program
from functrain.core.state import Tensors, TrainState
from functrain.core.step import device_state


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
    given, parts = program.split(state, batch)
    if not given.samples:
        return {}
    stream = state.rng.stream("step", state.counters.step)
    return dict(program.repeated(device_state(state), parts, stream)[0])
