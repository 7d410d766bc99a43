"""Functions of torch that compute otherwise under ``vmap``, as formulas of plain operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain.populations.batch_norm import batch_norm, instance_norm
from functrain.populations.dropout import alpha_dropout, dropout


class Formulas(TorchFunctionMode):
    """Within it, normalization and dropout consist of operations that can be mapped.

    Example:
        >>> x, mean, var = torch.tensor([[1.0], [3.0]]), torch.zeros(1), torch.ones(1)
        >>> with Formulas():
        ...     F.batch_norm(x, mean, var, training=True, eps=0.0)
        tensor([[-1.],
                [ 1.]])
        >>> mean, var
        (tensor([0.2000]), tensor([1.1000]))
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        formula: Callable[..., Tensor] = _FORMULAS.get(func, func)
        return formula(*args, **(kwargs or {}))


_FORMULAS: dict[Any, Callable[..., Tensor]] = {
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.dropout: dropout,
    F.alpha_dropout: alpha_dropout,
    torch.dropout: lambda input, p, train: dropout(input, p, train),
    torch.dropout_: lambda input, p, train: dropout(input, p, train, inplace=True),
}
