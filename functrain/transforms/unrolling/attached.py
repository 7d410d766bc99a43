"""Tensors that stay in the graph where code detaches them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Attached(TorchFunctionMode):
    """Within it ``detach`` keeps the graph.

    An optimizer detaches the parameters that its first state is made of, for they may be those of a
    module. As a function of initial values, that state depends on them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor itself instead of a detached one."""
        return args[0] if func is Tensor.detach else func(*args, **(kwargs or {}))
