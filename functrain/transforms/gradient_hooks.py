"""Hooks of gradients, which transformations that take gradients in another way cannot call."""

from __future__ import annotations

from functrain.core.recipe import Fixed
from functrain.errors import ConfigurationError


def refuse_gradient_hooks(fixed: Fixed, caller: str, remedy: str) -> None:
    """Refuse a model with hooks on the gradients of trained parameters or of modules.

    Args:
        fixed: of the program.
        caller: the function that cannot take such a model.
        remedy: what to do instead of removing them.

    Raises:
        ConfigurationError: there is a hook.
    """
    trained = [f"parameter {path}" for path in fixed.model.hooks if path in fixed.trainable]
    modules = [
        f"module {path or type(module).__name__}"
        for path, module in fixed.model.module.named_modules()
        if module._backward_hooks or module._backward_pre_hooks
    ]
    if found := [*trained, *modules]:
        raise ConfigurationError(
            f"{caller} cannot call the gradient hooks of the model ({', '.join(found[:4])}): "
            f"remove them, or {remedy}"
        )
