"""Sharpness-aware minimization (SAM): gradients at the worst point nearby instead of those here."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from functrain.core import step
from functrain.core.batch_lending import copied
from functrain.core.gradients import GradientFunction, GradientInputs, Gradients
from functrain.core.precision import widened
from functrain.core.program import Program
from functrain.core.protocol import require_one_step, require_plain
from functrain.core.schedule import plain_float
from functrain.core.state import Tensors
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.validators import BOOLEAN, number

_SMALLEST_NORM = 1e-12


@explained
def sharpness_aware(program: Program, rho: float = 0.05, adaptive: bool = False) -> Program:
    """Return a program whose steps take their gradients at the worst point nearby (SAM).

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
        ConfigurationError: rho is no number of at least 0.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: (model(batch) ** 2).mean()
        >>> plain = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> program = ft.donated(ft.sharpness_aware(plain, rho=0.1))
        >>> state, metrics = program.train_step(program.init(), torch.ones(4, 2))
        >>> program.recipe.sharpness
        Sharpness(rho=0.1, adaptive=False)
    """
    require_plain(program, "sharpness_aware")
    require_one_step(program, "sharpness_aware")
    if not step.is_eager(program.device_step):
        raise ConfigurationError(
            "sharpness_aware takes an eager program: apply it before compiled or sharded"
        )
    recipe = attrs.evolve(program.recipe, sharpness=Sharpness(rho, adaptive))
    fixed = attrs.evolve(program.fixed, recipe=recipe)
    return attrs.evolve(program, fixed=fixed, device_step=step.eager(fixed))


@attrs.frozen
class Sharpness:
    """How far away the gradients of SAM (Foret et al., 2021) are taken.

    With ``g`` the gradients of a batch, those at ``p + rho * g / |g|`` are used; with
    ``adaptive`` (ASAM, Kwon et al., 2021) those at ``p + rho * p**2 * g / |abs(p) * g|``.

    Attributes:
        rho: the distance, from 0 up; 0.05 is the paper's, 2.0 that of ASAM's.
        adaptive: whether to measure it relative to the size of each weight.
    """

    rho: float = attrs.field(default=0.05, converter=plain_float, validator=number(minimum=0))
    adaptive: bool = attrs.field(default=False, validator=BOOLEAN)

    def around(self, gradient: GradientFunction) -> GradientFunction:
        """Make a gradient function sharpness-aware; it then takes two passes instead of one.

        Loss, metrics and buffers are those of the first pass. Each micro-batch has its own worst
        point, and dropout draws again in the second pass.
        """

        def aware(inputs: GradientInputs) -> Gradients:
            params, fixed = inputs.params, inputs.fixed
            # The second pass gets the batch as it was before the first, which may write to it.
            first = inputs._replace(batch=copied(inputs.batch, inputs.device))
            writes, here = fixed.model.writes, gradient(first)
            # Writes of the forward, to BatchNorm's buffers as to parameters, count once.
            frozen = writes.suspects(params, fixed.trainable, only_frozen=True)
            worst = writes.owned({**params, **self.worst(here.grads, params)}, frozen)
            spare = {path: buffer.clone() for path, buffer in here.buffers.items()}
            there = gradient(inputs._replace(params=worst, buffers=spare))
            return here._replace(grads=there.grads)

        return aware

    def worst(self, grads: Tensors, params: Tensors) -> Tensors:
        """Return the parameters at the worst point nearby, to first order.

        Example:
            >>> p, g = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}
            >>> Sharpness(rho=1.0).worst(g, p)["w"]
            tensor([0.6000, 0.8000])
        """
        with torch.no_grad():
            sizes = {path: params[path].abs() if self.adaptive else None for path in grads}
            scaled = {path: _times(widened(grad), sizes[path]) for path, grad in grads.items()}
            norms = [torch.linalg.vector_norm(grad) for grad in scaled.values()]
            factor = self.rho / (torch.linalg.vector_norm(torch.stack(norms)) + _SMALLEST_NORM)
            steps = {
                path: _times(grad, sizes[path]) * factor.to(grad.dtype)
                for path, grad in scaled.items()
            }
            return {
                path: (params[path] + step).to(params[path].dtype) for path, step in steps.items()
            }


def _times(grad: Tensor, size: Tensor | None) -> Tensor:
    return grad if size is None else grad * size
