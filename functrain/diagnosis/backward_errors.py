"""Explanations of a backward pass that failed, and of code that differentiates by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from functrain.core.state import Tensors
from functrain.errors import FunctrainError, LossError, ModelError, UnsupportedError

# Messages of torch about grad and backward, about hooks, and about retain_grad.
_WITHOUT_GRADIENTS = ("does not require grad", "doesn't require gradient", "requires_grad=False")


def explain_backward(error: RuntimeError, leaves: Tensors) -> None:
    """Explain why gradients with respect to ``leaves`` failed; the caller raises other errors.

    Raises:
        ModelError: the model uses reentrant checkpointing, whose own backward pass writes into
            ``.grad``, or the forward freezes trained parameters.
    """
    if "use_reentrant" in str(error):
        raise explain_reentrant() from error
    frozen = [path for path, leaf in leaves.items() if not leaf.requires_grad]
    if frozen:
        raise ModelError(
            "the forward or the loss switched requires_grad off on trained parameters: "
            f"{frozen[:4]}. Choose what is trained by functrain.program(..., trainable=...), by "
            "functrain.optim.Frozen in groups, or from some step on by functrain.phases; to leave "
            "parameters out of one loss, give it parameter.detach()"
        ) from error


def explain_reentrant() -> ModelError:
    """Return the error for reentrant checkpointing, which would lose gradients."""
    return ModelError(
        "the model uses torch.utils.checkpoint with use_reentrant=True, which cannot give "
        "gradients as values (it writes them into .grad). Pass use_reentrant=False: the same "
        "memory is saved, and torch recommends it."
    )


def explain_independence() -> FunctrainError:
    """Return the error for a loss that depends on no trainable parameter."""
    if torch.is_inference_mode_enabled():
        return UnsupportedError(
            "train_step was called in torch.inference_mode(), where torch makes no gradients: "
            "leave it out; torch.no_grad() may stay"
        )
    return LossError(
        "the loss does not depend on any trainable parameter. Compute it from the model that is "
        "passed to loss(model, batch), without .detach(), .item() or torch.no_grad()."
    )


def explain_layout(path: str, grad: Tensor) -> UnsupportedError:
    """Return the error for a sparse gradient."""
    return UnsupportedError(
        f"parameter {path!r} received a gradient of layout {grad.layout}; functrain's steps take "
        "dense gradients only. Make the layer with sparse=False."
    )


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
