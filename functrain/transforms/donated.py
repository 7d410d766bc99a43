"""Donation: the memory and speed of in-place training under a pure interface."""

from __future__ import annotations

from typing import Any, overload

import attrs

from functrain.core.program import Program
from functrain.core.protocol import AnyProgram, require_program
from functrain.errors import ConfigurationError


@overload
def donated(program: Program) -> Program: ...
@overload
def donated(program: AnyProgram) -> AnyProgram: ...
def donated(program: Any) -> Any:
    """Return a program whose ``train_step`` reuses the memory of the state it is given.

    The numbers are those of the pure program, bit for bit. The state passed in is consumed: any
    later use of it raises :class:`functrain.errors.DonatedStateError`. Keep the returned state, or
    take a copy before the step with ``functrain.copy(state)``. A state whose ``params``,
    ``buffers``, ``optimizer`` or ``ema`` were read since it was made keeps their values: that step
    writes to copies, at the price of a pure one.

    Args:
        program: any program, compiled or not.

    Returns:
        The donating program. The programs of a joint one consume their states as they step: a
        state that its ``step`` reads later is an error.

    Raises:
        ConfigurationError: the step is a function of the user over a tree.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: (model(batch) ** 2).mean()
        >>> program = ft.donated(ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1)))
        >>> state = program.init()
        >>> later, metrics = program.train_step(state, torch.ones(4, 2))
        >>> state.params
        Traceback (most recent call last):
        functrain.errors.DonatedStateError: state.params was read, but this TrainState ...
    """
    require_program(program)
    if not program.leaves():
        raise ConfigurationError(
            f"donated: expected a program whose step is functrain's, got a "
            f"{type(program).__name__}: its step is a function of your own, which decides itself "
            "what memory it uses. Leave donated out"
        )
    return attrs.evolve(program, donates=True)
