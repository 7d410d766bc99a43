"""Groups made by convention: what does not decay, and what learns more slowly."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor

from functrain.core.optimizer import LearningRate, Optimizer
from functrain.errors import ConfigurationError
from functrain.optim.from_torch import FromTorch
from functrain.optim.groups import Frozen, Groups, Pattern, groups
from functrain.schedules import Scaled, as_schedule


def is_bias_or_norm(path: str, param: Tensor) -> bool:
    """Tell whether weight decay usually leaves a parameter out: a bias, a gain or another vector.

    These are the parameters with fewer than two dimensions, as in nanoGPT, and those whose name
    begins with "bias". The matrix-shaped weight of a LayerNorm over two dimensions is not seen.

    Example:
        >>> import torch
        >>> is_bias_or_norm("norm.weight", torch.ones(4)), is_bias_or_norm("w", torch.ones(4, 4))
        (True, False)
    """
    return param.ndim < 2 or path.rpartition(".")[2].startswith("bias")


def no_decay_on_bias_and_norm(
    optimizer: Optimizer, pattern: Pattern = is_bias_or_norm
) -> Optimizer:
    """Return an optimizer whose weight decay leaves out biases and the gains of norms.

    Args:
        optimizer: one with a weight decay; also groups of such, or wrapped ones.
        pattern: what is left out: a glob over paths, several, or a predicate (path, tensor).

    Raises:
        ConfigurationError: it is no optimizer, or has no weight decay.

    Example:
        >>> import torch
        >>> from functrain.optim import AdamW
        >>> adamw = no_decay_on_bias_and_norm(AdamW(1e-3, weight_decay=0.1))
        >>> model = torch.nn.Linear(2, 1)
        >>> bound = adamw.bind(dict(model.named_parameters()))
        >>> [(name, member.weight_decay) for name, member in bound.members]
        [('no_decay', 0.0), ('decay', 0.1)]
    """
    _require_optimizer("no_decay_on_bias_and_norm", optimizer)
    given = pattern is not is_bias_or_norm

    def split(inner: Optimizer) -> Optimizer:
        members = (("no_decay", _without_decay(inner)), ("decay", inner))
        return Groups((pattern, "*"), members, allow_unused=not given)

    return _each(optimizer, split)


def layerwise_lr_decay(optimizer: Optimizer, decay: float, layers: Sequence[Pattern]) -> Optimizer:
    """Return an optimizer whose learning rate falls from the output of a model to its input.

    Layer i of n learns with ``lr * decay**(n - 1 - i)`` (Howard & Ruder, 2018; BEiT and others
    use 0.65 to 0.9 in fine-tuning).

    Args:
        optimizer: for all layers; a pattern of groups may match nothing in a layer.
        decay: from one layer to the one before it, above 0.
        layers: a pattern for each layer, from the input to the output; see `groups`.

    Raises:
        ConfigurationError: a value is out of range, or it is no optimizer.

    Example:
        >>> from functrain.optim import SGD
        >>> layers = ["embed.*", "blocks.0.*", "blocks.1.*", "head.*"]
        >>> layerwise_lr_decay(SGD(0.8), 0.5, layers).lr
        {'0': 0.1, '1': 0.2, '2': 0.4, '3': 0.8}
    """
    _require_optimizer("layerwise_lr_decay", optimizer)
    if not (isinstance(decay, int | float) and 0 < decay < math.inf):
        raise ConfigurationError(
            f"layerwise_lr_decay: decay: expected a number above 0, got {decay!r}"
        )
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise ConfigurationError(
            f"layerwise_lr_decay: layers: expected a list with a pattern for each, got {layers!r}"
        )
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, Optimizer):  # a bound on all gradients stays one on all
        return attrs.evolve(optimizer, optimizer=layerwise_lr_decay(inner, decay, layers))  # type: ignore[misc]
    factors = [decay ** (len(layers) - 1 - index) for index in range(len(layers))]
    scaled = [_each(optimizer, functools.partial(_scaled, factor)) for factor in factors]
    members = [_may_miss(member) for member in scaled]
    return groups(list(zip(layers, members, strict=True)))


def _require_optimizer(function: str, optimizer: object) -> None:
    if isinstance(optimizer, type) or not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            f"{function}: expected an optimizer such as AdamW(lr=1e-3), got {optimizer!r}"
        )


def _each(optimizer: Optimizer, change: Callable[[Any], Optimizer]) -> Optimizer:
    """Change every optimizer inside groups and wrappers."""
    if isinstance(optimizer, Frozen):
        return optimizer
    if isinstance(optimizer, Groups):
        changed = tuple((name, _each(member, change)) for name, member in optimizer.members)
        return attrs.evolve(optimizer, members=changed)
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, Optimizer):
        return attrs.evolve(optimizer, optimizer=_each(inner, change))  # type: ignore[misc]
    return change(optimizer)


def _may_miss(optimizer: Optimizer) -> Optimizer:
    if not isinstance(optimizer, Groups):
        return optimizer
    members = tuple((name, _may_miss(member)) for name, member in optimizer.members)
    return attrs.evolve(optimizer, members=members, allow_unused=True)


def _without_decay(optimizer: Any) -> Optimizer:
    if isinstance(optimizer, FromTorch) and optimizer.takes("weight_decay"):
        options = {**optimizer.options, "weight_decay": 0.0}
        return attrs.evolve(optimizer, options=options)
    if not hasattr(optimizer, "weight_decay"):
        raise ConfigurationError(
            f"no_decay_on_bias_and_norm: {optimizer!r} has no weight_decay to leave out"
        )
    return attrs.evolve(optimizer, weight_decay=0.0)  # type: ignore[no-any-return]


def _scaled(factor: float, optimizer: Any) -> Optimizer:
    return attrs.evolve(optimizer, lr=_times(optimizer.lr, factor))  # type: ignore[no-any-return]


def _times(lr: LearningRate, factor: float) -> LearningRate:
    return Scaled(as_schedule(lr), factor) if callable(lr) else lr * factor
