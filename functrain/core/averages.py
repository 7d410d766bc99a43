"""Where the state of an optimizer has the weights that are evaluated in place of the parameters.

An optimizer says so as data, in a method `averages`, and a checkpoint records what it says. So the
files alone tell which weights the metrics of a run are of.
"""

from __future__ import annotations

from typing import Any

import attrs
from torch import Tensor

from functrain.core.optimizer import Optimizer


@attrs.frozen
class Averages:
    """Entries of an optimizer's state that are evaluated, or tell what is.

    Attributes:
        slot: the dotted name of their dict in the state.
        share: how far the evaluated weight is from the parameter towards the entry; ``None`` if it
            is the entry.
        params: the dotted name of a dict of parameters in the state, such as master weights, which
            stand for the parameters that it has.
    """

    slot: str
    share: float | Tensor | None = None
    params: str | None = None

    def weight(self, param: Tensor, entry: Tensor) -> Tensor:
        """Return the weight to evaluate with."""
        return entry if self.share is None else param + self.share * (entry - param)

    def below(self, name: str) -> Averages:
        """Return the same in a state that has this state under a name."""
        params = None if self.params is None else f"{name}.{self.params}"
        return attrs.evolve(self, slot=f"{name}.{self.slot}", params=params)


def declared(optimizer: Any, name: str | None = None) -> list[Averages] | None:
    """Return what an optimizer says, below a name if one is given.

    ``None`` stands for weights that only ``eval_params`` knows: its class overrides it and does not
    say what it returns.
    """
    kinds = type(optimizer).__mro__
    says, does = (
        next((at for at, kind in enumerate(kinds) if method in vars(kind)), len(kinds))
        for method in ("averages", "eval_params")
    )
    if kinds[does : does + 1] == (Optimizer,):
        return []
    found = optimizer.averages() if says <= does and says < len(kinds) else None
    return found if found is None or name is None else [one.below(name) for one in found]


def describe(optimizer: Any, params: dict[str, Tensor]) -> list[dict[str, Any]] | None:
    """Return as plain data which weights are evaluated in place of the parameters.

    Args:
        optimizer: of a program.
        params: the parameters that it trains.
    """
    found = declared(optimizer)
    if found is None and any(param.is_meta for param in params.values()):
        return None
    if found is None:
        same = optimizer.eval_params(optimizer.init(params), params)
        return [] if all(same[path] is param for path, param in params.items()) else None
    shares = (None if one.share is None else float(one.share) for one in found)
    return [{**attrs.asdict(one), "share": share} for one, share in zip(found, shares, strict=True)]
