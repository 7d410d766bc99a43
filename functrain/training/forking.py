"""A second run from one state."""

from __future__ import annotations

from functrain.core.protocol import State
from functrain.errors import ConfigurationError
from functrain.own_steps.states import reseeded
from functrain.tree.nodes import copy


def fork(state: State, seed: int | None = None) -> State:
    """Copy a state into memory of its own, optionally with another root seed.

    Another seed changes what steps draw from now on: dropout and all other randomness of model
    and loss, and the order of data that takes its seed from the run (``ft.data.Batches`` without a
    seed, a ``DataLoader`` and other iterables). Everything else stays: weights, moments, averages,
    the schedule with its horizon, and the counters, so that the fork continues at the same place of
    the same epoch.

    Args:
        state: not changed; it may be donated afterwards.
        seed: root of all randomness in training from here on.

    Returns:
        The copy.

    Raises:
        ConfigurationError: a seed is given for the state of a population.
        DonatedStateError: the state was given to a donated step.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.donated(ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1)))
        >>> state = program.init(seed=0)
        >>> other = ft.fork(state, seed=1)
        >>> state, _ = program.train_step(state, torch.ones(4, 2))
        >>> (other.counters.step, other.rng), (state.counters.step, state.rng)
        ((0, Rng(seed=1)), (1, Rng(seed=0)))
    """
    copied = copy(state)
    if seed is None:
        return copied
    if getattr(copied.counters.skipped, "ndim", 0):  # a count for each of several models
        raise ConfigurationError(
            f"fork: expected the state of one program to begin with seed {seed}, got that of a "
            "population, whose members have seeds of their own. Fork each and stack them: "
            "pop.stacked([ft.fork(pop.member(state, i), seed=...) for i in range(len(pop))])"
        )
    other: State = reseeded(copied, seed)
    return other
