"""All the optimizers that one is made of."""

from __future__ import annotations

from collections.abc import Iterator

from functrain.core.optimizer import Optimizer
from functrain.optim.groups import Groups


def nested(optimizer: Optimizer) -> Iterator[Optimizer]:
    """Yield an optimizer and those in it: members of groups, what wrappers are around.

    Args:
        optimizer: any.

    Example:
        >>> from functrain.optim import SGD, Adam, Centralize, groups
        >>> made = Centralize(groups([("*.bias", SGD(0.1)), ("*", Adam(0.1))]))
        >>> [type(one).__name__ for one in nested(made)]
        ['Centralize', 'Groups', 'SGD', 'Adam']
    """
    yield optimizer
    members = [member for _, member in optimizer.members] if isinstance(optimizer, Groups) else []
    inner = getattr(optimizer, "optimizer", None)
    for one in [*members, *([inner] if isinstance(inner, Optimizer) else [])]:
        yield from nested(one)
