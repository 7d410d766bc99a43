"""Explanations of a backward pass that failed, and of code that differentiates by itself."""

from __future__ import annotations

from functrain.core.gradients import REENTRANT
from functrain.core.state import Tensors
from functrain.errors import ModelError

# Messages of torch about grad and backward, about hooks, and about retain_grad.
_WITHOUT_GRADIENTS = ("does not require grad", "doesn't require gradient", "requires_grad=False")


def explain_backward(error: RuntimeError, leaves: Tensors) -> None:
    """Explain why gradients with respect to ``leaves`` failed; the caller raises other errors.

    Raises:
        ModelError: the model uses reentrant checkpointing, whose own backward pass writes into
            ``.grad``, or the forward freezes trained parameters.
    """
    if "use_reentrant" in str(error):
        raise ModelError(REENTRANT) from error
    frozen = [path for path, leaf in leaves.items() if not leaf.requires_grad]
    if frozen:
        raise ModelError(
            "the forward or the loss switched requires_grad off on trained parameters: "
            f"{frozen[:4]}. Choose what is trained by functrain.program(..., trainable=...), by "
            "functrain.optim.Frozen in groups, or from some step on by functrain.phases; to leave "
            "parameters out of one loss, give it parameter.detach()"
        ) from error


def needs_gradients(error: Exception) -> bool:
    """Return whether code failed because it differentiates, and nothing it computed could be.

    Example:
        >>> import torch
        >>> try:
        ...     torch.ones(()).backward()
        ... except RuntimeError as error:
        ...     needs_gradients(error)
        True
    """
    is_torchs = isinstance(error, RuntimeError)
    return is_torchs and any(words in str(error) for words in _WITHOUT_GRADIENTS)
