"""Parameters outside of the model on which a loss depends, and which no step trains."""

from __future__ import annotations

from torch import Tensor, nn

from functrain.errors import UntrainedParameterWarning
from functrain.errors.base import warn


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
