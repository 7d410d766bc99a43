"""Gradient hooks that a forward registers on its activations."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain.errors import UnsupportedError


class RefuseTensorHooks(TorchFunctionMode):
    """Within it no tensor takes a gradient hook.

    The backward pass through the steps would call it too, with gradients of another kind.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function unless it registers a hook."""
        if func is Tensor.register_hook:
            raise UnsupportedError(
                "the forward registers a gradient hook on a tensor, which differentiable training "
                "would call a second time in the backward pass through the step: leave it out, or "
                "train with the plain program"
            )
        return func(*args, **(kwargs or {}))
