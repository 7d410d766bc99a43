"""Sharpness-aware minimization as a transformation of a program."""

from __future__ import annotations

import functools

import attrs

from functrain.core import step
from functrain.core.program import Program
from functrain.core.sharpness import Sharpness
from functrain.errors import ConfigurationError


def sharpness_aware(program: Program, rho: float = 0.05, adaptive: bool = False) -> Program:
    """A program whose steps take their gradients at the worst point nearby (SAM).

    Such a step costs two forward and backward passes. Loss and metrics are those of the first;
    ``grad_norm``, clipping and the optimizer see the gradients of the second.

    Args:
        program: an eager program; apply ``donated`` or ``compiled`` to the result.
        rho: how far away, in the norm of all parameters together (Foret et al., 2021).
        adaptive: measure it relative to the size of each weight (ASAM, Kwon et al., 2021).

    Returns:
        The sharpness-aware program.

    Raises:
        ConfigurationError: the program's device part is not the eager one.
        ValueError: rho is below 0.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: (model(batch) ** 2).mean()
        >>> plain = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> program = ft.donated(ft.sharpness_aware(plain, rho=0.1))
        >>> state, metrics = program.train_step(program.init(), torch.ones(4, 2))
        >>> program.recipe.sharpness
        Sharpness(rho=0.1, adaptive=False)
    """
    if not step.is_eager(program.device_step):
        raise ConfigurationError("sharpness_aware takes an eager program: apply it before compiled")
    recipe = attrs.evolve(program.recipe, sharpness=Sharpness(rho, adaptive))
    fixed = attrs.evolve(program.fixed, recipe=recipe)
    return attrs.evolve(program, fixed=fixed, device_step=functools.partial(step.eager, fixed))
